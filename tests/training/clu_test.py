import subprocess
import sys

from tests.support.paths import ROOT

CODE = """
import sys
from transdiff_jax.training import metric_writers
assert not [name for name in sys.modules if name.partition(".")[0] == "clu"], "clu is left as it was"
metric_writers.JsonLinesWriter  # ours works with what it has loaded
try:
    import clu.metric_writers
except ImportError as error:
    print("missing", error.name)  # TensorFlow, as for any program without it
else:
    print(clu.metric_writers.SummaryWriter.__module__)
"""


def test_a_host_program_finds_clu_whole():
    result = subprocess.run([sys.executable, "-c", CODE], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() in ("missing tensorflow", "clu.metric_writers.summary_writer")
