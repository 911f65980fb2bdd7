"""Download public corpora from their publishers into the cache, and check them by digest.

The tasks' modules say what is fetched: a file is checked by its SHA-256, a Git repository by its commit, which is a digest of all it
holds. The digests of RTE, MRPC and BoolQ are those that Hugging Face's `datasets` recorded when it still fetched these files
(dataset_infos.json of its releases 1 and 2); those of BANKING77 were compared with the files themselves. The corpora belong to their
authors; nothing of them comes with this package.
"""

import http.client
import os
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.request
import zipfile
from pathlib import Path, PurePosixPath

from pydantic import BaseModel, ConfigDict, Field
from tqdm.utils import CallbackIOWrapper

from synthtune import __version__
from synthtune.errors import AssetError
from synthtune.files import digest, made_once, read_json, write_json
from synthtune.progress import progress
from synthtune.settings import official_corpora
from synthtune.task_list import SPECS

# Seconds without a byte before a server is given up.
PATIENCE = 30

# How often a broken transfer is taken up again in one run.
TRIES = 4


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class File(_Entry):
    """A file, or an archive some of whose members are kept (their path in it, and the name they get)."""

    url: str
    bytes: int = Field(gt=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    members: dict[str, str] = {}

    @property
    def name(self) -> str:
        return PurePosixPath(self.url).name


class Repository(_Entry):
    """A Git repository at a commit; `parts` below its `folder` are kept."""

    url: str
    commit: str = Field(pattern="^[0-9a-f]{40}$")
    folder: str
    parts: tuple[str, ...] = Field(min_length=1)


class Source(_Entry):
    """Where one corpus is published: as files or as a repository."""

    citation: str
    licence: str
    files: tuple[File, ...] = ()
    repository: Repository | None = None


def sources() -> dict[str, Source]:
    """Where the corpus of every task that names a source is published."""
    return {name: Source(citation=spec.citation, licence=spec.licence, **spec.source) for name, spec in SPECS.items() if spec.source}


def fetch(name: str) -> Path:
    """Return the folder of a corpus; fetch the corpus if it is not cached. One process fetches, others wait.

    If a transfer breaks, the received part of a file is kept, and the next run requests the rest.

    Raises
    ------
    AssetError
        One sentence: the network, the publisher or the digest, and what to do.
    StageError
        The cache cannot be written.
    """
    source, folder = sources()[name], official_corpora() / name
    wanted, done = digest(source.model_dump(mode="json")), folder / "fetched.json"

    def there() -> bool:
        return done.exists() and read_json(done)["made_from"] == wanted

    def make(temporary: Path) -> None:
        if source.repository is not None:
            _checkout(name, source.repository, temporary)
        for file in source.files:
            _take(name, file, temporary)
        write_json(temporary / done.name, {"made_from": wanted, "licence": source.licence, "citation": source.citation})

    return made_once(folder, there, make)


def _cannot(name: str, problem: str) -> AssetError:
    return AssetError(f"'{name}'{problem} put the official files of {name} into a folder and give it as --data-root.")


def _take(name: str, file: File, folder: Path) -> None:
    received = official_corpora() / ".partial" / file.sha256
    received.parent.mkdir(exist_ok=True)
    _download(name, file, received)
    if digest(received) != file.sha256:
        received.unlink()
        raise _cannot(name, f": {file.url} is not the file that was expected (its SHA-256 differs); it was deleted. Run again; if that "
                            "does not help,")
    if not file.members:
        shutil.copyfile(received, folder / file.name)
    else:
        with zipfile.ZipFile(received) as archive:
            for member, kept in file.members.items():
                (folder / kept).write_bytes(archive.read(member))
    received.unlink()


def _download(name: str, file: File, received: Path) -> None:
    """Download a file, continuing an interrupted transfer, which neither pooch nor urllib's own functions do."""
    complaint: object = ""
    have = received.stat().st_size if received.exists() else 0
    for _ in range(TRIES):
        if have >= file.bytes:
            return
        headers = {"User-Agent": f"synthtune/{__version__}"} | ({"Range": f"bytes={have}-"} if have else {})
        try:
            with urllib.request.urlopen(urllib.request.Request(file.url, headers=headers), timeout=PATIENCE) as answer:
                goes_on = answer.status == http.HTTPStatus.PARTIAL_CONTENT  # a server may send it all again
                with open(received, "ab" if goes_on else "wb") as out, progress(
                        desc=f"fetch {name}, {file.name}", total=file.bytes, unit="B") as bar:
                    bar.update(out.tell())
                    shutil.copyfileobj(answer, CallbackIOWrapper(bar.update, out, "write"))
            complaint = "it ended too early"
        except urllib.error.HTTPError as error:
            raise _cannot(name, f": {file.url} was refused ({error.code} {error.reason}). Its publisher may have moved it:") from error
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
            complaint = getattr(error, "reason", None) or error
        have = received.stat().st_size if received.exists() else 0
    if have < file.bytes:
        raise _cannot(name, f": {file.url} cannot be fetched ({complaint}). Check the network and run again, which continues the "
                            "transfer; or")


def _checkout(name: str, repository: Repository, folder: Path) -> None:
    """Check out parts of a repository at its commit; Git verifies every file."""
    with tempfile.TemporaryDirectory(prefix=".git.", dir=official_corpora()) as work:
        def git(*arguments: str) -> None:
            subprocess.run(["git", "-C", work, *arguments], check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL,
                           env={**os.environ, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"})

        paths = [str(PurePosixPath(repository.folder, part)) for part in repository.parts]
        try:
            git("init", "--quiet")
            with progress(desc=f"fetch {name}, a Git repository", total=None, unit="B"):
                git("-c", "http.lowSpeedLimit=1", "-c", f"http.lowSpeedTime={PATIENCE}", "fetch", "--quiet", "--depth", "1",
                    repository.url, repository.commit)
            git("-c", "core.autocrlf=false", "checkout", "--quiet", "FETCH_HEAD", "--", *paths)
        except FileNotFoundError as error:
            raise _cannot(name, " is published as a Git repository, and there is no git here: install it, or") from error
        except subprocess.CalledProcessError as error:
            said = (error.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise _cannot(name, f": {repository.url} at commit {repository.commit[:12]} cannot be fetched ({said}). Check the network "
                                "and the disk and run again; or") from error
        for part, path in zip(repository.parts, paths, strict=True):
            shutil.move(Path(work, path), folder / part)
