"""Tests of the `equijump` command."""

import pytest

from equijump import cli


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["dance"], "dance"),
        (["train", "--workdir=a"], "--config"),
        (
            [
                "train", "--workdir=a", "--config=tiny",
                "--config.transport.kind=jump",
            ],
            "config.transport.kind: expected one of foellmer, two_sided, ",
        ),
        (
            [
                "train", "--workdir=a", "--config=tiny",
                "--config.train.batch_size=0",
            ],
            "config.train.batch_size: expected 1 or more, found 0",
        ),
        (
            [
                "train", "--workdir=a", "--config=tiny",
                "--config.transport.kind=two_sided", "--config.loss.kind=vector_map",
            ],
            "with two_sided, which does not tell the end of a jump",
        ),
        (
            [
                "train", "--workdir=a", "--config=tiny",
                "--config.model.refinements=2",
            ],
            "config.model.refinements: expected 0 with model.cloud ca and foellmer",
        ),
        (
            [
                "train", "--workdir=a", "--config=tiny",
                "--config.transport.kind=ddpm", "--config.loss.median_level=.5",
            ],
            "config.loss.median_level: expected 0 with a transport other than foellmer",
        ),
        (
            [
                "train", "--workdir=a", "--config=tiny",
                "--config.sample.method=heun",
            ],
            "config.sample.method: expected one of bridge, euler_maruyama, found heun",
        ),
        (
            [
                "train", "--workdir=a", "--config=tiny",
                "--config.data.temperatures=(300.0, 600.0)",
            ],
            "config.data.temperatures: expected one, or 1 as data.sources has",
        ),
    ],
)  # fmt: skip
def test_mistakes_are_one_line_and_status_2(arguments, told, tmp_path, capsys):
    arguments = [a.replace("=a", f"={tmp_path / 'a'}") for a in arguments]
    assert cli.main(arguments) == 2
    err = capsys.readouterr().err
    assert told in err
    assert err.count("\n") == 1
    assert not (tmp_path / "a").exists()
