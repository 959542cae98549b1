r"""EquiJump on alanine dipeptide in implicit solvent at 300 K, jumps of 10 ps.

    equijump train --config=ala2 --workdir=workdir/ala2

By default on the packaged trajectories, eight of 10 ns: six train, two validate. Forty
minutes on a core.
"""

import ml_collections

from common.runs.defaults import train_group


def get_config() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.seed = 0

    config.data = ml_collections.ConfigDict()
    config.data.sources = ("ala2_300K",)  # A packaged name, or patterns of files.
    config.data.weights = ()  # Of the entries; all systems equally often if empty.
    config.data.topology = ""  # The one beside each trajectory, if empty.
    config.data.select = ""  # Atoms, in MDTraj's language; all of proteins if empty.
    config.data.temperatures = ()  # K, of each entry; what is beside it if empty.
    config.data.spacing = 0.0  # ps, for files without usable times.
    config.data.lags = (10.0,)  # ps
    config.data.log_uniform = False  # Whether lags are the ends of a range.
    config.data.split = "trajectory"  # Or "time", "sequence", "cluster".
    config.data.held_out = 2  # Trajectories of each system that validate, or others.
    config.data.identity = 0.4  # Of two sequences from which they are of one cluster.
    config.data.crop = 0  # Residues of a pair, at most; all of them if 0.
    config.data.crop_kind = "sequence"  # Of a chain, or nearest in "space".
    config.data.align = True
    config.data.source_noise = 0.02  # Å
    config.data.ensemble_share = 0.0  # Of pairs whose source is hidden.
    config.data.num_clusters = 0  # Of sources that come equally often; 0 for none.

    # Keyword arguments of `equijump.model.EquiJump`.
    config.model = ml_collections.ConfigDict()
    config.model.update(num_channels=32, max_degree=1)
    config.model.update(num_conditioner_layers=1, num_layers=2)
    config.model.update(num_hidden=64, num_condition=48, num_edge_feats=24)
    config.model.update(num_neighbours=16, reach=4)
    config.model.cutoff = 20.0  # Å
    config.model.block = "equijump"  # A key of `common.nn.blocks`.
    config.model.product = "scalar"  # Of its messages: a key of `common.nn.products`.
    config.model.cloud = "ca"  # Of a cloud: "ca", "parent" or "chain".
    config.model.refinements = 0  # Rounds in which bonds are seen again.
    config.model.refresh_neighbours = False  # From the estimate, at every step.
    config.model.residue_types = 0  # Of residues; as many as the data need if 0.
    config.model.conditions = ("lag",)  # Keys of `common.nn.conditions`.

    config.transport = ml_collections.ConfigDict()
    config.transport.kind = "foellmer"  # A key of `equijump.transport.TRANSPORTS`.
    config.transport.noise_factor = 4.0  # Noise over the spread of the displacement.

    config.loss = ml_collections.ConfigDict()
    config.loss.kind = "quadratic"  # Or "vector_map".
    config.loss.alignment = "single"  # Or another where no source is on the path.
    config.loss.unroll = 0  # Jumps of the network's own that lead to the source.
    config.loss.median_level = 0.0  # Of noise, of foellmer; its own if 0.

    config.train = train_group(batch_size=128, num_validation=4_000)  # Pairs.

    config.sample = ml_collections.ConfigDict()
    config.sample.num_steps = 10  # Evaluations of the network in a jump.
    config.sample.repulsion = 0.0  # Of atoms that would overlap; 1 for usual radii.
    config.sample.method = ""  # Of the transport's; the first if empty.
    return config
