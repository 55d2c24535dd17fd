"""Typed settings: YAML, overrides, unknown keys, help from comments, the file that is saved."""

from dataclasses import dataclass

import pytest
import yaml

from bigfast.cli.settings import Settings, early


@dataclass
class Sizes:
    """Sizes of a thing."""

    width: int = 4  # of the thing, 50 % more than its depth
    depth: int | None = None
    rate: float = 0.5  # per second


@pytest.fixture
def settings():
    made = Settings("thing", "Make a thing.", "  bigfast thing --task a")
    made.add("task", str, None, "what to do", required=True)
    made.add_group(Sizes, "sizes", skip={"depth"})
    made.add("sizes.depth", int | None, None, "how deep")
    return made


def test_overrides_win_over_the_file(settings, tmp_path):
    (tmp_path / "a.yaml").write_text("task: a\nsizes:\n  width: 7\n  rate: 1e-3\n")
    chosen = settings.parse(["--config", str(tmp_path / "a.yaml"), "--sizes.width", "8"])
    assert (chosen.task, chosen.sizes.width, chosen.sizes.rate) == ("a", 8, 1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sizes.widht", "3"], r"unknown setting --sizes\.widht; did you mean --sizes\.width\?"),
        (["--width", "3"], r"unknown setting --width; did you mean --sizes\.width\?"),
        (["--zzz", "3"], r"unknown setting --zzz; --help lists"),
        (["--sizes.width", "wide"], r"--sizes\.width: Expected a int. Got value: wide"),
        (["--config", "nowhere.yaml"], "does not exist"),
    ],
)
def test_errors_of_one_line(settings, arguments, message):
    with pytest.raises(ValueError, match=message) as caught:
        settings.parse(["--task", "a", *arguments])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("task: a\nsizes:\n  widht: 3\n", r"unknown setting --sizes\.widht; did you mean"),
        ("task: a\ntsak: b\n", r"unknown setting --tsak; did you mean --task\?"),
        ("task: [\n", r"a\.yaml: not YAML"),
        ("just words\n", r"a\.yaml: expected settings"),
    ],
)
def test_errors_in_the_file(settings, tmp_path, text, message):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        settings.parse(["--config", str(tmp_path / "a.yaml")])


def test_what_is_required(settings):
    with pytest.raises(ValueError, match="task"):
        settings.parse([])


def test_help_has_the_comments(settings, capsys):
    with pytest.raises(SystemExit):
        settings.parse(["--help"])
    out = " ".join(capsys.readouterr().out.split())
    assert "of the thing, 50 % more than its depth (type: int, default: 4)" in out
    assert "per second" in out
    assert out.endswith("example: bigfast thing --task a")


def test_saved_settings_parse_to_the_same(settings, tmp_path):
    chosen = settings.parse(["--task", "a", "--sizes.rate", "2"])
    settings.save(chosen, tmp_path / "run")
    file = tmp_path / "run" / "config.yaml"
    assert yaml.safe_load(file.read_text())["sizes"] == {"width": 4, "rate": 2.0, "depth": None}
    again = settings.parse(["--config", str(file)])
    assert (again.task, again.sizes) == (chosen.task, chosen.sizes)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["config.yaml"]


def test_early_looks_at_arguments_and_files(tmp_path):
    (tmp_path / "a.yaml").write_text("task: b\n")
    config = ["--config", str(tmp_path / "a.yaml")]
    assert early(["--task", "a"], "task") == "a"
    assert early(["--x", "--task=a"], "task") == "a"
    assert early(config, "task") == "b"
    assert early([*config, "--task", "c"], "task") == "c"
    assert early(["--task", "c", f"--config={tmp_path / 'a.yaml'}"], "task") == "b"
    assert early(["--help"], "task") is None
