"""Tests of runs in parts: put together they are what one process writes."""

import itertools
import json

import jax
import numpy as np
import pytest
from rdkit import Chem

from common.commands import cli
from common.errors import UsageError
from common.runs import checkpoints
from symphony import (
    build,
    evaluate,
    likelihood,
    manifest,
    merge,
    molfile,
    parts,
    refine,
    sample,
)
from symphony import score as scoring
from symphony.chemistry import bonds
from symphony.evaluate import samples
from symphony.likelihood import OrderTerms
from tests.symphony import small
from tests.symphony.test_denoiser import small_config as denoiser_config


@pytest.fixture(scope="module")
def packaged(tmp_path_factory):
    """Small random weights."""
    folder = tmp_path_factory.mktemp("weights") / "small"
    _, params = small.model_and_params()
    config = small.make_config()
    config.sample.max_atoms = 12
    checkpoints.save_packaged(folder, params, config, {})
    return folder


@pytest.fixture(scope="module")
def denoiser(tmp_path_factory):
    """A small random denoiser."""
    folder = tmp_path_factory.mktemp("weights") / "denoiser"
    params = build.init_params(denoiser_config(), jax.random.key(0))
    checkpoints.save_packaged(folder, params, denoiser_config(), {})
    return folder


@pytest.fixture(autouse=True)
def bonds_in_process(monkeypatch):
    """Perceives in this process, by stand-ins: hardly any of chance has bonds."""
    monkeypatch.setattr(bonds, "perceive", bonds_for_some)
    first = lambda mol: mol.GetAtomWithIdx(0).GetSymbol()
    monkeypatch.setattr(bonds, "write_smiles", first)
    monkeypatch.setattr(manifest, "with_bonds", small.with_bonds)


def bonds_for_some(atomic_numbers, positions, preset, charge):
    if len(atomic_numbers) < 2 or len(atomic_numbers) % 3 == 0:
        return None
    mol = bonds.to_mol(atomic_numbers, positions)
    mol.AddBond(0, 1, Chem.BondType.SINGLE)
    return mol.GetMol()


def contents(path):
    return [path.with_suffix(end).read_bytes() for end in (".sdf", ".extxyz", ".jsonl")]


def run(command, count, output, *flags):
    """Runs a command in so many parts, the last one first, and puts them together."""
    for index in reversed(range(count)):
        flag = f"--shard={index}/{count}"
        assert command.main([f"--output={output}", flag, *flags]) == 0
    assert not output.exists()
    return output


def sampling(packaged, *more):
    return (
        f"--checkpoint={packaged}", "--num_molecules=10", "--num_slots=4", "--seed=3",
        *more,
    )  # fmt: skip


@pytest.mark.parametrize("flags", [(), ("--accept=xyz2mol_hueckel",)])
def test_sampled_parts_are_what_one_process_writes(packaged, tmp_path, flags, capsys):
    flags = sampling(packaged, *flags)
    whole, joined = tmp_path / "whole.sdf", tmp_path / "joined.sdf"
    assert sample.main([f"--output={whole}", *flags]) == 0
    run(sample, 3, joined, *flags)
    lines = (tmp_path / "joined.1-of-3.jsonl").read_text().splitlines()
    assert [json.loads(line)["index"] for line in lines[1:]] == [4, 5, 6]
    assert merge.main([str(joined)]) == 0
    assert contents(joined) == contents(whole)
    assert b"$$$$" in contents(joined)[0]
    assert "of 3 parts" in capsys.readouterr().out
    # It goes on as the whole one does.
    for path in (joined, whole):
        assert sample.main([f"--output={path}", *flags, "--num_molecules=11"]) == 0
    assert contents(joined) == contents(whole)


def test_a_killed_part_goes_on(packaged, tmp_path, monkeypatch):
    flags = sampling(packaged)
    whole, killed = tmp_path / "whole.sdf", tmp_path / "killed.sdf"
    append, calls = molfile.append, itertools.count()

    def die_in_the_third(output, record, sdf, extxyz):
        if next(calls) == 2:
            output.extxyz.write(extxyz.encode()[:60])
            raise KeyboardInterrupt
        append(output, record, sdf, extxyz)

    second = [f"--output={killed}", "--shard=1/2", *flags]
    with monkeypatch.context() as patch:
        patch.setattr(molfile, "append", die_in_the_third)
        with pytest.raises(KeyboardInterrupt):
            sample.main(second)
    assert sample.main([f"--output={killed}", "--shard=0/2", *flags]) == 0
    told = r"killed.1-of-2.sdf: expected 5 molecules, found 2; run its command again"
    with pytest.raises(UsageError, match=told):
        merge.main([str(killed)])
    assert not killed.exists()
    with pytest.raises(UsageError, match="was begun with first = 5, found 6"):
        sample.main([*second, "--num_molecules=12"])
    assert sample.main(second) == 0
    assert merge.main([str(killed)]) == 0
    assert sample.main([f"--output={whole}", *flags]) == 0
    assert contents(killed) == contents(whole)


@pytest.mark.parametrize("accept", [(), ("--accept=xyz2mol_hueckel",)])
def test_what_needs_all_molecules_is_done_when_they_are_together(
    packaged, tmp_path, accept
):
    joined = run(sample, 2, tmp_path / "joined.sdf", *sampling(packaged, *accept))
    for flags in (["--diverse"], ["--diverse", "--best=2"], ["--best=3"]):
        whole = tmp_path / f"whole{len(flags)}.sdf"
        assert sample.main([f"--output={whole}", *sampling(packaged), *flags]) == 0
        assert merge.main([str(joined), *flags, "--overwrite"]) == 0
        assert contents(joined) == contents(whole)
        reasons = contents(joined)[2].count(b'"rejected": "')
        assert 0 < reasons < 10
        for file in molfile.paths_of(whole):
            file.unlink()


def test_parts_of_other_flags_are_not_joined(packaged, tmp_path, capsys):
    joined = tmp_path / "joined.sdf"
    flags = sampling(packaged)
    assert sample.main([f"--output={joined}", "--shard=0/2", *flags]) == 0
    hotter = [*flags, "--temperature_focus=1.5"]
    assert sample.main([f"--output={joined}", "--shard=1/2", *hotter]) == 0
    assert cli.run("symphony merge", merge.main, [str(joined)]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "joined.1-of-2.sdf" in err
    assert "temperature_focus = 1.0, found 1.5" in err
    (tmp_path / "joined.1-of-2.sdf").unlink()
    with pytest.raises(UsageError, match=r"missing: joined.1-of-2.sdf"):
        merge.main([str(joined)])


def test_a_part_that_was_edited_is_not_joined(packaged, tmp_path):
    joined = run(sample, 2, tmp_path / "joined.sdf", *sampling(packaged))
    part = tmp_path / "joined.0-of-2.extxyz"
    part.write_bytes(part.read_bytes().replace(b"seed=3", b"seed=4", 1))
    with pytest.raises(UsageError, match=r"joined.0-of-2.sdf: .* edited since"):
        merge.main([str(joined)])
    part.with_suffix(".jsonl").unlink()
    with pytest.raises(UsageError, match=r"joined.0-of-2.jsonl: expected the manifest"):
        merge.main([str(joined)])


def test_joining_replaces_nothing_unless_told(packaged, tmp_path):
    joined = run(sample, 2, tmp_path / "joined.sdf", *sampling(packaged))
    joined.with_suffix(".extxyz").write_text("mine")
    with pytest.raises(UsageError, match=r"joined.extxyz: expected no file"):
        merge.main([str(joined)])
    assert joined.with_suffix(".extxyz").read_text() == "mine"
    assert not joined.exists()
    assert merge.main([str(joined), "--overwrite"]) == 0


@pytest.mark.parametrize(
    "flag", ["--until_valid", "--diverse", "--best=2", "--relax=mmff"]
)
def test_what_needs_all_molecules_is_refused_of_a_part(flag, tmp_path, capsys):
    given = [f"--output={tmp_path / 'out.sdf'}", "--shard=0/2", flag]
    assert cli.run("symphony sample", sample.main, given) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert flag.partition("=")[0] in err
    assert "symphony merge" in err
    assert list(tmp_path.iterdir()) == []


def test_a_verdict_takes_the_place_of_an_earlier_one():
    frame = '1\nname=a stopped=F valid=F unfinished="no room" accepted=T moved=1\n'
    verdict = {"accepted": False, "rejected": "unfinished"}
    assert parts.with_verdict(frame, verdict) == (
        '1\nname=a stopped=F valid=F unfinished="no room" accepted=F '
        "rejected=unfinished moved=1\n"
    )


def write_chains(path, count):
    text = ""
    for seed in range(count):
        positions, species = small.chain(seed, 4 + seed % 4)
        symbols = np.array(["H", "C", "N", "O", "F"])[species]
        pairs = zip(symbols, positions, strict=True)
        rows = [f"{symbol} {x} {y} {z}" for symbol, (x, y, z) in pairs]
        text += "\n".join([str(len(rows)), f"chain{seed}", *rows]) + "\n"
    path.write_text(text)
    return path


def test_refined_parts_are_what_one_process_writes(denoiser, tmp_path):
    given = write_chains(tmp_path / "in.xyz", 70)
    flags = f"--molecules={given}", f"--checkpoint={denoiser}"
    whole, joined = tmp_path / "whole.sdf", tmp_path / "joined.sdf"
    assert refine.main([f"--output={whole}", *flags]) == 0
    run(refine, 3, joined, *flags)
    assert merge.main([str(joined)]) == 0
    assert contents(joined) == contents(whole)
    with pytest.raises(UsageError, match=r"at most 3 parts of 70 .*32 stay together"):
        refine.main([f"--output={joined}", "--shard=0/4", *flags])


def test_samples_that_are_refined_stay_in_their_batches(packaged, denoiser, tmp_path):
    flags = sampling(packaged, "--num_molecules=36", "--refine")
    flags = (*flags, f"--refiner={denoiser}")
    whole, joined = tmp_path / "whole.sdf", tmp_path / "joined.sdf"
    assert sample.main([f"--output={whole}", *flags]) == 0
    run(sample, 2, joined, *flags)
    assert merge.main([str(joined)]) == 0
    assert contents(joined) == contents(whole)


def terms_of_sizes(weights, num_draws):
    """Stands for the scorer: what it gives is of the key and of all sizes."""

    def run(keys, positions, species, node_mask, near, conditions):
        sizes = node_mask.size + near.pair_mask.size + positions.std()
        bits = np.asarray(jax.random.key_data(keys)).sum(axis=1) % 97.0
        rows, count = (len(bits), node_mask.size), len(bits)
        placed = np.where(node_mask, bits[:, None] + sizes, 0.0) * np.ones(rows)
        complete = np.ones(count, bool)
        return OrderTerms(placed, bits, np.zeros(count), complete)

    return run


def test_scores_of_parts_are_what_one_process_writes(
    packaged, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(likelihood, "scorer_of", terms_of_sizes)
    count = likelihood.FEW_MOLECULES + 5  # Of several buckets.
    given = write_chains(tmp_path / "in.xyz", count)
    flags = f"--molecules={given}", f"--checkpoint={packaged}", "--num_orders=2"
    whole, joined = tmp_path / "whole.csv", tmp_path / "joined.csv"
    assert scoring.main([f"--output={whole}", *flags]) == 0
    run(scoring, 4, joined, *flags)
    assert merge.main([str(joined)]) == 0
    assert f"joined.csv: {count} molecules, of 4 parts" in capsys.readouterr().out
    for name in (scoring.atoms_path_of, lambda path: path):
        assert name(joined).read_bytes() == name(whole).read_bytes()
    one, other = (
        json.loads(x.with_suffix(".json").read_text()) for x in (joined, whole)
    )
    assert (one | {"written": None}) == (other | {"written": None})
    assert merge.main([str(joined)]) == 0  # They are its own.
    part = tmp_path / "joined.1-of-4_atoms.csv"
    part.write_text(part.read_text() + "\n")
    with pytest.raises(UsageError, match=rf"{part.name}: .* edited since"):
        merge.main([str(joined)])
    with pytest.raises(UsageError, match=r"--diverse: expected molecules, as out.sdf"):
        merge.main([str(joined), "--diverse"])


def test_scores_are_not_relaxed_in_parts(tmp_path):
    with pytest.raises(UsageError, match=r"--relax: .*symphony merge"):
        scoring.main(["in.sdf", "--shard=0/2", "--relax=mmff"])


def test_a_report_of_parts_is_that_of_one_process(tmp_path, monkeypatch):
    monkeypatch.undo()  # Perception as it is.
    known = samples.read_reference("qm9-sample")
    bad = known.molecules[5][0], known.molecules[5][1] * np.float32(np.nan)
    given, data = tmp_path / "in.npz", tmp_path / "data.npz"
    for path, chosen in ((given, [*known.molecules[:5], bad]), (data, known.molecules)):
        np.savez(
            path,
            num_atoms=np.array([len(numbers) for numbers, _ in chosen[:6]]),
            atomic_numbers=np.concatenate([numbers for numbers, _ in chosen[:6]]),
            positions=np.concatenate([positions for _, positions in chosen[:6]]),
            smiles=np.array(known.smiles[:6]),
        )
    flags = (
        f"--samples={given}", f"--reference={data}", "--num_workers=1",
        "--num_perceived=0", "--num_relaxed=0", "--conventions=edm,strict",
    )  # fmt: skip
    whole, joined = tmp_path / "whole", tmp_path / "joined"
    assert evaluate.main([f"--output={whole}", *flags]) == 0
    run(evaluate, 2, joined, *flags)
    assert merge.main([str(joined)]) == 0
    for name in ("report.html", "report.json"):
        assert (joined / name).read_bytes() == (whole / name).read_bytes()
    given.write_bytes(data.read_bytes())
    with pytest.raises(UsageError, match=r"in.npz: .*joined.0-of-2.json is of"):
        merge.main([str(joined), "--overwrite"])
    (tmp_path / "joined.1-of-2.json").write_text("{}")
    with pytest.raises(UsageError, match=r"joined.1-of-2.json: .* symphony evaluate"):
        merge.main([str(joined)])
