"""Whatever ends a command is one line, and no terminal obeys what a file says."""

import io
import os
import signal
import subprocess
import sys

import pytest
from cologen.prw.bank.bank import Bank
from cologen.prw.files.validate import escape_controls, shorten
from cologen.training.cli import main as terminal
from cologen.training.cli.arguments import write_text
from cologen.training.from_scratch.store import BANK
from cologen.training.toy.store import TOY

COMMAND = [sys.executable, "-m", "cologen.training"]
INSPECT = ["bank", "inspect", str(TOY.folder / BANK)]


@pytest.mark.parametrize("step", ["make_parser", "parse_arguments", "log_to_stderr"])
def test_control_c_is_one_line_wherever_it_comes(capsys, monkeypatch, step):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(terminal, step, interrupted)
    assert terminal.main(INSPECT) == 130
    out, error = capsys.readouterr()
    assert (out, error) == ("", "cologen: stopped.\n")


def test_commands_are_there_without_what_windows_lacks(tmp_path):
    (tmp_path / "resource.py").write_text("raise ModuleNotFoundError")
    done = subprocess.run([*COMMAND, "--help"], env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True)
    assert done.returncode == 0 and b"bench" in done.stdout, done.stderr


@pytest.mark.parametrize("number, line", [(signal.SIGINT, "cologen: stopped.\n"), (signal.SIGTERM, "")])
def test_a_signal_while_commands_are_imported_ends_even_where_a_library_swallows_it(tmp_path, number, line):
    library = f"import os\ntry:\n    os.kill(os.getpid(), {number:d})\nexcept BaseException:\n    pass\n"
    (tmp_path / "torch.py").write_text(library)
    done = subprocess.run(
        COMMAND,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # tests in the background are told to ignore it
    )
    assert (done.returncode, done.stdout, done.stderr) == (128 + number, "", line)


def test_a_terminated_command_leaves_nothing_half_written(tmp_path):
    script = (
        "import sys, time, pathlib\n"
        "from cologen.prw.files.atomic_write import atomic_write\n"
        "from cologen.training.cli import main as terminal\n"
        "def write(argv):\n"
        "    with atomic_write(pathlib.Path(sys.argv[1]) / 'a') as partial:\n"
        "        partial.write_text('half')\n"
        "        print(flush=True)\n"
        "        time.sleep(60)\n"
        "terminal.run_command = write\n"
        "sys.exit(terminal.main([]))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE)
    process.stdout.readline()
    assert len(list(tmp_path.iterdir())) == 1
    process.terminate()
    assert process.wait(timeout=300) == 128 + signal.SIGTERM and not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_closed_output_is_no_traceback():
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([*COMMAND, *INSPECT], stdout=writer, stderr=subprocess.PIPE, text=True, timeout=300)
    os.close(writer)
    assert done.returncode in (0, 1) and done.stderr == ""
    done = subprocess.run(
        ["sh", "-c", '"$@" >&-', "sh", *COMMAND, *INSPECT], stderr=subprocess.PIPE, text=True, timeout=300
    )
    assert done.returncode in (0, 1) and "Traceback" not in done.stderr


EVIL = "\x1b]0;owned\x07\x9b2J\u202egnp.\ud800\r\x08name"


def test_no_terminal_obeys_a_file(capsys, tmp_path):
    bank = Bank.open(TOY.folder / BANK)
    object.__setattr__(bank.info, "licence", EVIL + "\nrouters: fine")
    bank.save(tmp_path / "evil.safetensors")
    assert terminal.main(["bank", "inspect", str(tmp_path / "evil.safetensors")]) == 0
    assert terminal.main(["bank", "inspect", str(tmp_path / f"{EVIL[:3]}.safetensors")]) == 1
    for text in capsys.readouterr():
        assert "\x1b" not in text and "\x9b" not in text and "\u202e" not in text
        assert not any(line == "routers: fine" for line in text.splitlines())


def test_text_that_a_terminal_shows_stays_as_it_is():
    text = "小さな猫, größer — ok 🦊"
    assert escape_controls(text) == shorten(text) == text
    assert escape_controls("a\nb\tc\x1b", "\n\t") == "a\nb\tc\\x1b"


def test_an_output_of_another_encoding_takes_what_it_can():
    stream = io.TextIOWrapper(io.BytesIO(), "ascii")
    write_text(stream, "größer")
    assert stream.buffer.getvalue() == b"gr\\xf6\\xdfer\n"
    write_text(None, "nobody reads this")
