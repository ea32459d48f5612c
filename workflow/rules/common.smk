# What the rules share: the configuration, and the functions of sregistry.pipeline, which are plain Python and tested as such.

import copy
import getpass
import os
import sys

try:
    from sregistry.config import settings
    from sregistry.pipeline import images
    from sregistry.pipeline.demands import Demands
    from sregistry.pipeline.engine import Host
    from sregistry.pipeline.graph import Graph
    from sregistry.pipeline.host import in_one_line
    from sregistry.pipeline.parameters import Parameters
    from sregistry.results import paths
except ImportError as error:
    print(f"error: {error.name} is not installed in {sys.executable}; run scripts/quickstart, or pip install -e .", file=sys.stderr)
    sys.exit(2)

# Snakemake asks for the user's name as soon as the graph is built; in a container, the number may have none.
try:
    getpass.getuser()
except (KeyError, OSError):
    os.environ.update(LOGNAME=str(os.getuid()))

HOST = Host(workflow, checkpoints)
# Until a file is read, the config is what the command line says; as a module, it is the other workflow's to give.
GIVEN = copy.deepcopy(config)
if HOST.own:
    in_one_line(settings.from_file)()
if HOST.own and os.path.exists("config/config.yaml"):

    configfile: "config/config.yaml"


PLAN = images.plan(HOST, config, given=GIVEN, schema=workflow.source_path("../schemas/config.schema.yaml"), files=HOST.files)
GRAPH = Graph(HOST, PLAN)
PARAMS = Parameters(GRAPH)
JOBS = Demands(GRAPH)
BATCH = GRAPH.images.batch


wildcard_constraints:
    image="[A-Za-z0-9._-]+-[0-9a-f]{8}",
    digest="sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}",
    variant="[a-z0-9-]+",
    pattern="[A-Za-z0-9._-]+-[0-9a-f]{8}",


# For workflows that have these rules as a module: the file of an image, and a receipt of it as an input.
file_of = GRAPH.file_of
receipt_of = GRAPH.receipt_of


def blob(wildcards):
    """The receipt of a layer's blob, whose time says nothing; of one that is fetched again, a dry run shows what follows."""
    path = GRAPH.blob(wildcards)
    return path if GRAPH.is_fetched_again(wildcards) else ancient(path)
