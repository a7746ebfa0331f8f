"""The main job: what it prints and writes, and what it reaches on MNIST."""

import subprocess
import sys

import numpy as np
import pytest

import ndquant as nq
from ndquant import __main__, demo

ROWS = ["float", "PTQ int8", "PTQ int4", "float, one more epoch", "QAT int4, the same epoch"]


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    """Exit status and output of `python -m ndquant --save DIR` on the digits, and the folder."""
    folder = tmp_path_factory.mktemp("models")
    command = [sys.executable, "-m", "ndquant", "--save", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    return done, folder


class TestOnTheDigits:
    def test_it_succeeds_and_shows_progress(self, printed):
        done, _ = printed
        assert done.returncode == 0, done.stderr
        assert "float, epoch 1 of" in done.stderr and "QAT int4" in done.stderr

    def test_the_table_has_a_row_for_each_network(self, printed):
        text = printed[0].stdout
        assert "64-100-100-10" in text
        rows = {name: line for name in ROWS for line in text.splitlines() if line.startswith(name + "  ")}
        assert list(rows) == ROWS
        accuracy = {name: float(line[len(name) :].split()[0]) for name, line in rows.items()}
        assert accuracy["float"] > 95
        assert accuracy["PTQ int8"] > accuracy["float"] - 1
        assert accuracy["QAT int4, the same epoch"] > 93
        for name in ("float", "PTQ int8", "PTQ int4", "QAT int4, the same epoch"):
            assert rows[name].count(" us") == 2

    def test_verify_finds_nothing(self, printed):
        lines = [line for line in printed[0].stdout.splitlines() if line.startswith("verify")]
        assert [line.split(":")[0] for line in lines] == [f"verify {name}" for name in (ROWS[1], ROWS[2], ROWS[4])]
        assert all("simulation, integers and NumPy agree: 0 of" in line for line in lines)

    def test_the_saved_models_load_and_have_the_printed_sizes(self, printed):
        done, folder = printed
        assert "all load back and give the same outputs" in done.stdout
        files = {path.stem: path.stat().st_size for path in folder.glob("*.npz")}
        assert sorted(files) == ["PTQ-int4", "PTQ-int8", "QAT-int4-the-same-epoch", "float", "float-one-more-epoch"]
        assert f"{files['PTQ-int8'] / 1000:.1f} KB" in done.stdout
        images = demo.digits_job().test[0]
        assert nq.load(folder / "PTQ-int8.npz")(images).shape == (360, 10)


class TestCommandLine:
    def test_a_folder_without_mnist_is_an_error_that_names_the_file(self, tmp_path, capsys):
        assert __main__.main(["--mnist", str(tmp_path)]) == 2
        assert "train-images-idx3-ubyte" in capsys.readouterr().err

    def test_info_shows_the_machine(self, capsys):
        assert __main__.main(["info"]) == 0
        assert "portable" in capsys.readouterr().out

    def test_a_difference_is_a_failure(self, monkeypatch, capsys, tmp_path):
        job = demo.digits_job()._replace(epochs=1)
        right = demo.run(job, folder=tmp_path)
        right[1].network["1"].bias = np.asarray(right[1].network["1"].bias) + 1
        monkeypatch.setattr(demo, "run", lambda *args: right)
        assert __main__.main(["--save", str(tmp_path)]) == 1
        out = capsys.readouterr().out
        assert "verify PTQ int8: " in out and "first in 1: 100 of the biases" in out
        assert "PTQ int8 differ when loaded" in out


@pytest.fixture(scope="module")
def mean(mnist_folder):
    """Mean accuracy in percent of three seeds on MNIST, by row; the results of the last; the job."""
    job = demo.mnist_job(mnist_folder)
    runs = [demo.run(job, seed) for seed in (1, 2, 3)]
    return {name: 100 * np.mean([r[i].accuracy for r in runs]) for i, name in enumerate(ROWS)}, runs[-1], job


class TestOnMnist:
    def test_accuracy_of_three_seeds(self, mean):
        accuracy, _, _ = mean
        # On an x86 with AVX2 the float network gives 95.98. One seed varies by a standard deviation of 0.43 around
        # 95.87 (16 seeds; PyTorch, same data: 0.6 around 96.0, ten seeds), and a last bit of np.exp is another seed.
        assert accuracy["float"] >= 95.2
        assert accuracy["PTQ int8"] >= accuracy["float"] - 0.3
        assert accuracy["QAT int4, the same epoch"] > accuracy["PTQ int4"]
        assert accuracy["QAT int4, the same epoch"] >= accuracy["float, one more epoch"] - 0.5

    def test_file_sizes(self, mean):
        _, results, _ = mean
        assert results[1].file_bytes <= 96_000
        assert results[0].file_bytes > 3.7 * results[1].file_bytes

    def test_everything_agrees_on_the_test_images(self, mean):
        _, results, job = mean
        for result in results:
            if result.network.kind == "integer":
                assert result.network.verify(job.test[0]), result.name
