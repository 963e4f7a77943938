from pathlib import Path
import json, pytest
from cli_support import Cli
from tiny_models import TinySpec, write_tiny_model
SMALL = TinySpec(num_layers=1, width=64, ffn_width=128, quantization="Q8_0", repetitive=True)
def test_it(tmp_path_factory, tmp_path):
    cli = Cli.of(tmp_path_factory)
    suite = tmp_path / "suite.jsonl"
    suite.write_text("\n".join(json.dumps(dict(question_id=f"q{i}", category="ab"[i%2], turns=["Write about the mill.", "Now shorter."][: 1 + i % 2])) for i in range(3)))
    d = write_tiny_model(tmp_path / "drafter.gguf", SMALL)
    ended = cli.run("bench", *cli.on_quick, "--drafter", d, "--suite", suite, "--max-tokens", "40", "--without", "context,database,model,grammar,trim,estimates,budget", "--baseline", "lookup,fixed-2,fixed-8,hierarchy,no-planner", "--form", f"whole={d}", "--json", tmp_path / "o.json", "--temperature", "0.8")
    print(ended.stdout, ended.stderr, ended.returncode)
    r = json.loads((tmp_path/"o.json").read_text())
    for run in r["runs"][:13]:
        print(run["way"], run["place"], run["request_ms"], run["prompt_ms"], run["decode_ms"], run["target_passes"], run["by_source"], run["split"])
    print({k: v for k, v in r.items() if k != "runs"})
    assert 0
