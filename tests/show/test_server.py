"""The page's server: where it listens, and what it does not give away."""

import socket
import sys

import pytest

from tests.show.browsing import free_port, get, shown

pytest.importorskip("gradio")


@pytest.fixture(scope="module")
def page(digits_run, tmp_path_factory):
    """A page started in a folder that holds a secret."""
    home = tmp_path_factory.mktemp("show")
    (home / "secret.txt").write_text("SECRET")
    with shown(home, digits_run.checkpoint) as port:
        yield home, port


def test_the_page_is_there_and_asks_no_other_server_for_type(page):
    status, content = get(page[1], "/")
    assert status == 200
    assert b"igpt" in content
    assert b"fonts.googleapis.com/css" not in content


@pytest.mark.parametrize("way", ["/gradio_api/file={}", "/file={}", "/gradio_api/file=/..{}", "/gradio_api/file%3D{}",
                                 "/gradio_api/file=./../../..{}", "/static/../../../../..{}", "/assets/../../../..{}",
                                 "/theme.css/../../..{}", "/gradio_api/file=//{}"])  # fmt: skip
def test_no_file_of_the_machine_is_read(page, way, digits_run):
    home, port = page
    for path, inside in (("/etc/passwd", b"root:"), (home / "secret.txt", b"SECRET"), (digits_run.config, b"model:")):
        status, content = get(port, way.format(path))
        assert status in (400, 403, 404, 405)
        assert inside not in content


def test_a_file_beside_the_page_is_not_read_by_its_name(page):
    for name in ("secret.txt", "./secret.txt"):
        status, content = get(page[1], f"/gradio_api/file={name}")
        assert status in (403, 404)
        assert b"SECRET" not in content


def test_a_site_whose_name_leads_here_is_not_answered(page):
    _, port = page
    assert get(port, "/config", headers={"Host": f"evil.example:{port}"})[0] == 400
    assert get(port, "/config", headers={"Host": f"localhost:{port}"})[0] == 200


@pytest.mark.skipif(sys.platform != "linux", reason="all of 127/8 is this machine on Linux alone")
def test_it_listens_on_127_0_0_1_alone(page):
    with pytest.raises(OSError), socket.create_connection(("127.0.0.2", page[1]), timeout=5):
        pass


def test_a_port_in_use_is_one_line(igpt, digits_run):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, _, err = igpt("show", "--ckpt", digits_run.checkpoint, "--port", taken.getsockname()[1])
    assert code == 2
    assert len(err.strip().splitlines()) == 1
    assert "choose another" in err


def test_a_port_that_is_none_a_missing_extra_and_a_broken_checkpoint_are_one_line(
    igpt, tmp_path, monkeypatch, digits_run
):
    code, _, err = igpt("show", "--ckpt", digits_run.checkpoint, "--port", 0)
    assert (code, len(err.strip().splitlines())) == (2, 1)
    (tmp_path / "broken.ckpt").write_bytes(b"no checkpoint")
    code, _, err = igpt("show", "--ckpt", tmp_path / "broken.ckpt", "--port", free_port())
    assert (code, len(err.strip().splitlines())) == (2, 1)
    assert "broken.ckpt" in err
    monkeypatch.setattr("igpt.show.serving.find_spec", lambda name: None)
    code, _, err = igpt("show", "--ckpt", digits_run.checkpoint)
    assert (code, len(err.strip().splitlines())) == (2, 1)
    assert "igpt[show]" in err
