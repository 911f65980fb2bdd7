"""Files that are whole or absent: what a full disk, a read-only folder and a kill do to them."""

import os
import subprocess

import pytest
import torch
from safetensors.torch import save_file
from synthtune import files
from synthtune.errors import StageError


@pytest.fixture
def small(small_disk):
    """A file system of one megabyte."""
    return small_disk("1m")


def test_weights_that_do_not_fit_are_one_sentence_and_leave_what_was_there(small):
    with files.atomic_path(small / "w.safetensors") as temporary:
        save_file({"w": torch.ones(3)}, temporary)
    before = (small / "w.safetensors").read_bytes()
    with (pytest.raises(StageError, match="Cannot write .*w.safetensors: No space left on device. Free space there"),
          files.atomic_path(small / "w.safetensors") as temporary):
        save_file({"w": torch.ones(10**6)}, temporary)
    assert (small / "w.safetensors").read_bytes() == before
    assert [path.name for path in small.iterdir()] == ["w.safetensors"]


def test_an_error_that_is_not_of_the_system_stays_what_it_is(tmp_path):
    with pytest.raises(ValueError, match="of the caller"), files.atomic_path(tmp_path / "x"):
        raise ValueError("of the caller")


def test_a_folder_on_a_full_disk_cannot_be_claimed(small):
    with pytest.raises(OSError, match="No space left"), open(small / "filler", "wb", buffering=0) as handle:
        while handle.write(bytes(2**16)) == 2**16:
            pass
        handle.write(b"0")
    with pytest.raises(StageError, match="Cannot write to .*small: No space left on device. Choose another."), \
            files.claimed(small, "Choose another."):
        pass
    (small / "filler").unlink()
    with files.claimed(small, "Choose another."):
        assert (small / ".lock").read_text() == f"{os.getpid()}\n"


def test_a_read_only_folder_is_one_sentence(small):
    (small / "t.json").write_text("{}")
    subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True)
    with pytest.raises(StageError, match="Cannot remove .*t.json: Read-only file system"):
        files.remove(small / "t.json")
    with pytest.raises(StageError, match="Cannot write to .*small: Read-only file system"), files.claimed(small, ""):
        pass
    with pytest.raises(StageError, match="Cannot write to .*small: Read-only file system"):
        files.write_json(small / "t.json", {})


def test_what_a_kill_left_half_written_is_removed_and_nothing_else(tmp_path):
    work = tmp_path / "work"
    for name in (".work.abcd_123", "work/.t.parquet.a1b2c3d4", "work/part/.x.json.________", "work/.cache", "work/part/plain"):
        (tmp_path / name).mkdir(parents=True)
    files.remove_left_over(work)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == [
        "work", "work/.cache", "work/part", "work/part/plain"]
