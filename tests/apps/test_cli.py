"""The command `chainrule`: its output, files and exit codes."""

from __future__ import annotations

import contextlib
import csv
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule import data, recipes
from chainrule.cli import main
from chainrule.training.confusion import percent

INSTALL = 'the command line requires: pip install "chainrule[cli]"'
for module in ("click", "matplotlib", "PIL"):
    pytest.importorskip(module, reason=INSTALL)

terminal = pytest.importorskip("chainrule.cli.terminal")

FILES = {
    "model.safetensors",
    "history.csv",
    "history.png",
    "confusion.png",
    "filters.png",
    "mistakes.png",
    "digit.png",
}
COMMANDS = ("train", "evaluate", "predict", "mnist", "tutorial", "info")
VERBOSE = ["--verbose", "--show"]
QUICK = ["mnist", "--embedded", "--network", "mlp", "--epochs", "2"]


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each test in an empty folder, without a copy of MNIST."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CHAINRULE_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the output folder of one run of `chainrule mnist`."""
    folder = tmp_path_factory.mktemp("trained")
    assert main([*QUICK, "--out", str(folder)]) == 0
    return folder


def test_ctrl_c_outside_the_training_ends_with_its_own_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("chainrule.cli.info.info", interrupted)
    assert main(["info"]) == 130
    assert capsys.readouterr().err.splitlines()[-1] == "chainrule: interrupted"


def test_mnist_prints_the_run_and_writes_all_files(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*QUICK, "--seed", "3"]) == 0
    shown, progress = capsys.readouterr()
    folder = Path("chainrule-mnist", "mlp")
    assert {path.name for path in folder.iterdir()} == FILES
    for part in (
        "embedded subset of MNIST: 6,000 training and 1,000 test images",
        "2 epochs, batch size 128, peak learning rate 0.1, seed 3",
        "parameters: 101,770",
        "Most confident mistakes",
        f"Files in {folder}",
        f"  chainrule predict \\\n    {folder}/model.safetensors \\\n    {folder}/digit.png",
    ):
        assert part in shown
    accuracy = re.search(r"^Test accuracy (\d+\.\d\d) %$", shown, re.MULTILINE)
    assert accuracy
    assert float(accuracy[1]) > 85.0
    assert len(re.findall(r"^  true \d", shown, re.MULTILINE)) == 10
    assert "epoch 2/2" in progress
    assert "validation" in progress
    assert max(map(len, shown.splitlines())) <= 80
    assert "\x1b" not in shown  # no color without a terminal


def test_mnist_files_belong_to_the_run(trained: Path) -> None:
    network = cr.load(trained / "model.safetensors")
    assert [type(layer) for layer in network.layers] == [
        type(layer) for layer in recipes.mlp().layers
    ]
    with open(trained / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert float(rows[1]["validation_accuracy"]) > 0.8
    for name in FILES:
        if name.endswith(".png"):
            assert (trained / name).read_bytes().startswith(b"\x89PNG"), name


def test_the_same_seed_writes_the_same_network(trained: Path, threads: None) -> None:
    assert main([*QUICK, "--out", "again", "--threads", "1"]) == 0
    assert cr.get_num_threads() == 1
    first, second = trained / "model.safetensors", Path("again", "model.safetensors")
    assert first.read_bytes() == second.read_bytes()


def test_options_change_the_training(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--batch-size", "512", "--learning-rate", "0.02", "--out", "one/two"]
    assert main(["mnist", "--embedded", "--network", "mlp", "--epochs", "1", *options]) == 0
    assert "1 epoch, batch size 512, peak learning rate 0.02" in capsys.readouterr().out
    assert Path("one", "two", "model.safetensors").is_file()


def test_mnist_is_downloaded_or_the_embedded_subset_is_used(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    downloads = []

    def unreachable(root: Path | None, download: bool) -> None:
        downloads.append(download)
        raise FileNotFoundError("mnist: not found")

    monkeypatch.setattr(data, "mnist", unreachable)
    assert main(["mnist", "--network", "mlp", "--epochs", "1"]) == 0
    shown = capsys.readouterr()
    assert downloads == [False, True]
    assert "downloading it (11 MB)" in shown.err
    assert "Download failed (no mirror responded); using the embedded subset." in shown.err
    assert "embedded subset of MNIST" in shown.out


def test_missing_data_in_a_given_folder_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def unreachable(root: Path | None, download: bool) -> None:
        raise FileNotFoundError(f"mnist: searched {root}")

    monkeypatch.setattr(data, "mnist", unreachable)
    assert main(["mnist", "--network", "mlp", "--data", "there"]) == 1
    assert capsys.readouterr().err.endswith("chainrule: mnist: searched there\n")


def test_full_mnist_is_used_if_it_is_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(data, "mnist", lambda root, download: data.digits())
    assert main(["mnist", "--network", "mlp", "--epochs", "1"]) == 0
    assert "MNIST: 6,000 training" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["mnist", "--network", "vgg"], 2, "'vgg' is not one of 'cnn', 'lenet', 'mlp'"),
        (["mnist", "--embedded", "--data", "."], 2, "--embedded and --data are mutually exclusive"),
        (["mnist", "--epochs", "0"], 2, "'--epochs': 0 is not in the range 1<=x<=2147483647"),
        (["mnist", "--learning-rate", "nan"], 2, "'--learning-rate': nan is not finite"),
        (["mnist", "--learning-rate", "-inf"], 2, "'--learning-rate': -inf is not in the range"),
        (["mnist", "--learning-rate", "1e999"], 2, "'--learning-rate': 1e999 is not finite"),
        (["mnist", "--learning-rate", "0"], 2, "'--learning-rate': 0.0 is not in the range x>0"),
        (
            ["mnist", "--seed", "-1"],
            2,
            "'--seed': -1 is not in the range 0<=x<=1844674407370955",
        ),
        (["mnist", "--seed", str(2**64)], 2, "'--seed': 18446744073709551616 is not in the range"),
        (["mnist", "--threads", "0"], 2, "'--threads': 0 is not in the range 1<=x<=4096"),
        (["mnist", "--threads", "4097"], 2, "'--threads': 4097 is not in the range 1<=x<=4096"),
        (["mnist", "--batch-size", "0"], 2, "'--batch-size': 0 is not in the range"),
        (
            ["mnist", "--batch-size", str(2**31)],
            2,
            "'--batch-size': 2147483648 is not in",
        ),
        (["mnist", "--epochs", str(2**31)], 2, "'--epochs': 2147483648 is not in the range"),
        (["mnist", "--epochs", "9" * 5000], 2, "'--epochs': '999"),
        (["mnist", "--out", ""], 2, "'--out': path must not be empty"),
        (["mnist", "--data", ""], 2, "'--data': path must not be empty"),
        (["tutorial", "--out", ""], 2, "'--out': path must not be empty"),
        (["predict", "", "x.png"], 2, "'MODEL': path must not be empty"),
        (["predict", "file", ""], 2, "'FILES...': path must not be empty"),
        (
            ["mnist", "--embedded", "--out", "file"],
            2,
            "'--out': file: path must be a folder, got a file",
        ),
        (["mnist", "--embedded", "--out", "file/x"], 2, "'--out': file/x: Not a directory"),
        (["mnist", "--embedded", "--out", "/dev/null"], 2, "'--out': /dev/null: path must be a f"),
        (["mnist", "--embedded", "--out", "x" * 300], 2, "File name too long"),
        (["tutorial", "--out", "."], 2, "'--out': .: path must be a regular file, got a folder"),
        (["tutorial", "--out", "file/x"], 2, "'--out': file/x: Not a directory"),
        (["tutorial", "--out", "/dev/null"], 2, "/dev/null: path must be a regular file, got a"),
        (["predict", "absent.safetensors", "x.png"], 1, "absent.safetensors"),
        (["predict", "file", "x.png"], 1, "file is not a safetensors file"),
        (["predict", "file"], 2, "Missing argument 'FILES...'"),
        (["fly"], 2, "No such command 'fly'"),
    ],
)
def test_failure_is_a_message_and_an_exit_code(
    arguments: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("file").write_text("x")
    assert main(arguments) == code
    shown = capsys.readouterr()
    assert message in shown.err
    assert "Traceback" not in shown.err
    assert shown.out == ""


@pytest.mark.skipif(os.geteuid() == 0, reason="root can write to every folder")
def test_read_only_folder_is_rejected_before_training(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("locked").mkdir(mode=0o500)
    assert main([*QUICK, "--out", "locked"]) == 1
    assert "--out locked: folder must be writable, got a read-only one" in capsys.readouterr().err


def test_diverged_training_is_one_message(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*QUICK, "--learning-rate", "1e30"]) == 1
    assert re.search(r"^chainrule: fit: loss is .* in epoch 1, ", capsys.readouterr().err, re.M)


def test_predict_classifies_images(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image = pytest.importorskip("PIL.Image")
    digit = data.digits()[1].images[0, :, :, 0]
    Image.fromarray(255 - digit).resize((200, 200)).save("dark.jpg")
    model = str(trained / "model.safetensors")
    capsys.readouterr()
    assert main(["predict", model, str(trained / "digit.png"), "dark.jpg", *VERBOSE]) == 0
    shown = capsys.readouterr().out
    assert f"{trained / 'digit.png'}: 7" in shown
    assert "dark.jpg: 7" in shown
    assert len(re.findall(r"^  \d  \S+ +[<>]?\d+\.\d %$", shown, re.MULTILINE)) == 20


def test_predict_continues_after_an_invalid_image(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("notes.png").write_text("no image")
    capsys.readouterr()
    model, good = str(trained / "model.safetensors"), str(trained / "digit.png")
    assert main(["predict", model, "notes.png", "absent.png", good]) == 1
    shown = capsys.readouterr()
    assert shown.err.splitlines() == [
        "chainrule: notes.png: file must be an image (PNG, JPEG, BMP, GIF, TIFF or WebP), "
        "got unknown data",
        "chainrule: [Errno 2] No such file or directory: 'absent.png'",
    ]
    assert f"{good}: 7" in shown.out


def test_predict_names_the_model_whose_outputs_are_not_finite(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = recipes.mlp()
    network.parameter_vector = np.full_like(network.parameter_vector, 1e38)
    network.save("wrong.safetensors")
    good = str(trained / "digit.png")
    capsys.readouterr()
    assert main(["predict", "wrong.safetensors", good, "absent.png", good]) == 1
    text = f"chainrule: {good}: wrong.safetensors: outputs must be finite, got nan"
    shown = capsys.readouterr()
    assert shown.err.splitlines()[::2] == [text, text]
    assert shown.out == ""


def test_predict_rejects_a_network_for_other_inputs(capsys: pytest.CaptureFixture[str]) -> None:
    cr.Sequential(cr.Linear(3), input_shape=(5,)).save("other.safetensors")
    assert main(["predict", "other.safetensors", "x.png"]) == 1
    err = capsys.readouterr().err
    assert "must map images (rows, columns, 1 or 3) to (classes,)" in err
    assert "got (5,) to (3,) in other.safetensors" in err


def test_info_prints_all_entries(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    shown = capsys.readouterr().out
    for name, value in cr.info().items():
        assert name.replace("_", " ") in shown
        assert str(value[-1] if isinstance(value, tuple) else value) in shown


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert cr.__version__ in capsys.readouterr().out


def test_help_fits_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ([], *([name] for name in COMMANDS)):
        assert main([*command, "--help"]) == 0
        assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[\d;]*m", "", text)


@pytest.mark.parametrize("columns", [20, 40, 80, 200])
@pytest.mark.parametrize("total", [1_000, 1_000_000])
def test_tables_and_bars_fit_the_terminal(
    columns: int, total: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    confusion = np.eye(10, dtype=int) * (total // 10) + 1
    names = [str(digit) for digit in range(10)]
    table = [plain(line) for line in terminal.confusion_matrix(confusion, names)]
    bars = [plain(line) for line in terminal.bar_chart(np.arange(10) / 45, names)]
    assert len(bars) == 10
    limit = max(columns, 38)  # the minimum width
    assert max(map(len, [*table, *bars])) <= limit
    assert ("true 0" in table[2]) == (columns >= (80 if total == 1_000 else 100))


def test_percent_rounds_to_0_and_100_only_if_exact() -> None:
    shown = [percent(share) for share in (0.0, 1e-9, 0.001, 0.5, 0.9994, 0.99999, 1.0)]
    assert shown == ["0.0 %", "<0.1 %", "0.1 %", "50.0 %", ">99.9 %", ">99.9 %", "100.0 %"]


def launch(*arguments: str, **environment: str) -> subprocess.Popen[bytes]:
    """Start `python -m chainrule` as a subprocess that handles SIGINT as in a terminal."""
    return subprocess.Popen(
        [sys.executable, "-m", "chainrule", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **environment},
        # A background test runner ignores SIGINT, and its child processes inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def test_ascii_terminal(trained: Path) -> None:
    process = launch(
        "predict", str(trained / "model.safetensors"), str(trained / "digit.png"), "--show",
        LC_ALL="C", PYTHONIOENCODING="ascii", PYTHONUTF8="0",
    )  # fmt: skip
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert b"#####" in out
    assert out.isascii()


def test_ctrl_c_saves_the_network() -> None:
    stale = Path("cut", "confusion.png")
    stale.parent.mkdir()
    stale.write_bytes(b"from an earlier run")
    process = launch(
        "mnist", "--embedded", "--network", "mlp", "--epochs", "100000", "--out", "cut"
    )
    assert process.stderr is not None
    line = process.stderr.readline()  # printed after the first epoch
    assert b"epoch" in line
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert b"interrupted; the partially trained network is in cut/model.safetensors" in err
    assert b"Traceback" not in err
    assert cr.load("cut/model.safetensors").output_shape == (10,)
    assert Path("cut", "history.csv").is_file()
    assert not stale.exists()


def test_closed_pipe_prints_no_traceback() -> None:
    process = launch("mnist", "--embedded", "--network", "mlp", "--epochs", "1")
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=120) == 1
    assert b"Traceback" not in err
    assert b"Exception" not in err


def test_command_without_click_names_the_install_command() -> None:
    program = (
        "import sys; sys.modules['click'] = None\n"
        "from chainrule.cli import main\nsys.exit(main(['info']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 1
    assert done.stderr == 'chainrule: click is not installed: pip install "chainrule[cli]"\n'


def test_output_that_is_no_regular_file_is_refused_before_training(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in sorted(FILES):
        folder = Path("out", name)
        folder.mkdir(parents=True)
        os.mkfifo(folder / name)
        assert main([*QUICK, "--out", str(folder)]) == 1
        message = f"mnist: {folder / name}: path must be a regular file, got a named pipe"
        assert capsys.readouterr().err == f"chainrule: {message}\n"
        assert os.listdir(folder) == [name]
    os.mkfifo("page.html")
    assert main(["tutorial", "--quick", "--out", "page.html"]) == 2
    message = "'--out': page.html: path must be a regular file, got a named pipe"
    assert message in capsys.readouterr().err


def test_tilde_is_the_home_folder(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("HOME", str(trained))
    assert main(["predict", "~/model.safetensors", "~/digit.png"]) == 0
    assert f"{trained}/digit.png: 7" in capsys.readouterr().out
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main(["mnist", "--embedded", "--network", "mlp", "--epochs", "1", "--out=~/x"]) == 0
    assert (tmp_path / "x" / "model.safetensors").is_file()
    assert os.listdir(tmp_path) == ["x"]


@pytest.mark.parametrize(
    ("environment", "escapes"),
    [
        ({"TERM": "xterm-256color"}, True),
        ({"TERM": "dumb"}, False),
        ({"TERM": "unknown"}, False),
        ({"TERM": ""}, False),
        ({"TERM": "xterm-256color", "NO_COLOR": "1"}, False),
    ],
)
def test_escape_sequences(
    environment: dict[str, str], escapes: bool, trained: Path, tmp_path: Path
) -> None:
    variables = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    model, digit = str(trained / "model.safetensors"), str(trained / "digit.png")
    for arguments in (["info"], ["predict", model, digit, "--show"], ["info", "--bad"]):
        parent, child = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-m", "chainrule", *arguments],
            stdout=child, stderr=child, env={**variables, **environment},
        )  # fmt: skip
        os.close(child)
        shown = b""
        with contextlib.suppress(OSError):  # the end of a terminal
            while piece := os.read(parent, 4096):
                shown += piece
        os.close(parent)
        process.wait(timeout=120)
        assert shown
        assert (b"\x1b" in shown) == (escapes and arguments[-1] != "--bad"), shown
