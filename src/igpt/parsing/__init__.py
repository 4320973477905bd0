"""Command lines and YAML configs to typed options."""

from igpt.parsing.configs import check_config, config_name
from igpt.parsing.parser import CommandParser, arrange, command_line, invoked, renamed
from igpt.parsing.presets import RECIPES, read_yaml

__all__ = [
    "RECIPES",
    "CommandParser",
    "arrange",
    "check_config",
    "command_line",
    "config_name",
    "invoked",
    "read_yaml",
    "renamed",
]
