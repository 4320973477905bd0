"""Images as palette tokens on disk: the format (`index`), shards' bytes (`writing`), reading them back (`reading`)."""
