"""What is said to a reader that has gone."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("code", "stderr"),
    [
        # A run goes on: `train | tee log`, and Ctrl-C, which ends tee first.
        (
            "from jaxlm.console import Console\n"
            "console = Console()\n"
            "console.say('a')\n"
            "sys.stdin.readline()\n"
            "for _ in range(1000): console.say('b' * 99)\n"
            "sys.stderr.write('done')\n",
            "done",
        ),
        # A verb whose output is its result has nothing more to do: `predict | head`.
        (
            "from jaxlm import cli\n"
            "from jaxlm.verbs import env\n"
            "def run(arguments):\n"
            "    print('a', flush=True)\n"
            "    sys.stdin.readline()\n"
            "    while True: print('b' * 99)\n"
            "env.run = run\n"
            "sys.exit(cli.main(['env']))\n",
            "",
        ),
    ],
)
def test_a_reader_that_goes_ends_no_run_and_no_verb_in_an_error(code: str, stderr: str) -> None:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", f"import sys\n{code}"], text=True, **pipes) as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline() == "a\n"
        process.stdout.close()
        process.stdin.write("\n")
        process.stdin.close()
        assert process.stderr.read() == stderr
        assert process.wait(30) == 0
