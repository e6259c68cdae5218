"""Damage to names: a file is gone, renamed, a link, a folder, a pipe, huge, or has strange neighbours."""

import os
import shutil

HUGE = 8 << 30
STRANGE = ("²", "٤٥", "9" * 30, "0099", "-1", "1e3", " 7", "a\nb", "x" * 200, "7.orbax-checkpoint-tmp", "..x", "%s{0}")


def missing(draw, path):
    path.unlink()


def renamed(draw, path):
    path.rename(path.with_name(path.name + " "))


def upper_case(draw, path):
    path.rename(path.with_name(path.name.swapcase()))


def dangling(draw, path):
    path.unlink()
    path.symlink_to("nowhere")


def looping(draw, path):
    path.unlink()
    path.symlink_to(path.name)


def link_to_folder(draw, path):
    path.unlink()
    path.symlink_to(".")


def link_to_copy(draw, path):
    """A link to the same content: all is well, or one line."""
    path.rename(path.with_name("moved"))
    path.symlink_to("moved")


def link_to_zeros(draw, path):
    path.unlink()
    path.symlink_to("/dev/zero")


def folder(draw, path):
    path.unlink()
    path.mkdir()


def filled_folder(draw, path):
    path.unlink()
    path.mkdir()
    (path / "a").write_text("a")


def pipe(draw, path):
    path.unlink()
    os.mkfifo(path)


def huge(draw, path):
    """A sparse file: it takes no space, but reading it whole would take all memory."""
    with path.open("wb") as file:
        file.truncate(HUGE)


def unreadable(draw, path):
    path.chmod(0)


def parent_is_file(draw, path):
    parent = path.parent
    shutil.rmtree(parent)
    parent.write_text("a file")


def parent_missing(draw, path):
    shutil.rmtree(path.parent)


def parent_empty(draw, path):
    shutil.rmtree(path.parent)
    path.parent.mkdir()


def parent_loops(draw, path):
    shutil.rmtree(path.parent)
    path.parent.symlink_to(path.parent.name)


def strange_files(draw, path):
    for name in (*STRANGE, os.fsdecode(b"\xff\xfe")):
        (path.parent / name).write_text("a file")


def strange_folders(draw, path):
    for name in (*STRANGE, os.fsdecode(b"\xff\xfe")):
        (path.parent / name).mkdir()
        (path.parent / name / "a").write_text("a file")


NAMES = {
    function.__name__: function
    for function in (
        *(missing, renamed, upper_case, dangling, looping, link_to_folder, link_to_copy, link_to_zeros, folder),
        *(filled_folder, pipe, huge, unreadable, parent_is_file, parent_missing, parent_empty, parent_loops),
        *(strange_files, strange_folders),
    )
}
