"""Command lines and YAML configs to typed options."""

from igpt.parsing.configs import check_config
from igpt.parsing.parser import CommandParser, arrange, command_line, invoked

__all__ = ["CommandParser", "arrange", "check_config", "command_line", "invoked"]
