"""The example of docs/forward-auth.md for Node.js verifies what authapp signs."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.assertions import asserted, key_set

GUIDE = Path(__file__).parents[2] / "docs" / "forward-auth.md"

CHECK = """
const assertions = JSON.parse(process.argv[2]);
for (const [assertion, method] of assertions) {
  try { console.log((await personOf(assertion, method)).email); }
  catch (error) { console.log("refused"); }
}
"""


def test_the_example_for_node(tmp_path: Path) -> None:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("NO node AND npm, so nothing shows that the example in the guide is right")
    installed = subprocess.run(
        [npm, "install", "--no-audit", "--no-fund", "--prefix", str(tmp_path), "jose@6"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    if installed.returncode:
        pytest.skip(f"THE REGISTRY OF npm DOES NOT ANSWER: {installed.stderr[-300:]}")
    scripts = re.findall(r"```js\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    (example,) = (script for script in scripts if "createRemoteJWKSet" in script)
    fetched = re.search(r"createRemoteJWKSet\(.*\)(?=;)", example)
    assert fetched
    given = f"createLocalJWKSet({json.dumps(key_set())})"
    example = example.replace(fetched[0], given).replace("createRemote", "createLocal")
    example = example.replace('"https://auth.example.org"', '"https://auth.example.org/auth"')
    (tmp_path / "example.mjs").write_text(example + CHECK)
    other = asserted(origin="https://other.example.org")
    cases = [(asserted(), "GET"), (asserted(), "POST"), (other, "GET"), (asserted()[:-9], "GET")]
    ran = subprocess.run(
        [node, str(tmp_path / "example.mjs"), json.dumps(cases)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == ["ada@example.org", "refused", "refused", "refused"]
