import re
import shlex
from pathlib import Path

import pytest

from diffident.calibrators import CALIBRATORS
from diffident.cli import build_parser
from diffident.conformal import METHODS
from diffident.corruptions import CORRUPTIONS
from diffident.detectors import DETECTORS

PAGE = (Path(__file__).parents[2] / "docs" / "posthoc.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^    (diffident (?:.*\\\n)*.*)$", PAGE, re.MULTILINE)


@pytest.mark.parametrize("name", [*CALIBRATORS, *DETECTORS, *CORRUPTIONS, *METHODS])
def test_every_method_is_on_the_page(name):
    assert f"`{name}`" in PAGE


def test_the_commands_have_the_options_that_there_are():
    assert len(COMMANDS) == 5
    for command in COMMANDS:
        words = shlex.split(command.replace("\\\n", " "))
        assert build_parser(words[1]).parse_args(words[1:]).command == words[1]
