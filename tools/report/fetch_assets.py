"""Fetch the report's JavaScript libraries from npm, by name, version and checksum, and bundle what the page uses.

Needs node and npm. Versions are in package.json, checksums of every package in package-lock.json; `npm ci` refuses
others. Writes into src/diffident/report/assets/vendor/: vendor.min.js, LICENSES.txt (of all that is in it) and
vendor.json (versions, and the bundle's sha256, which a test compares).

    python tools/report/fetch_assets.py
"""

import hashlib
import json
import shutil
import subprocess
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
TARGET = HERE.parents[1] / "src" / "diffident" / "report" / "assets" / "vendor"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        for name in ("package.json", "package-lock.json", "vendor.js"):
            shutil.copy(HERE / name, work / name)
        run(["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"], work)
        options = ["--bundle", "--format=iife", "--global-name=vendor", "--minify", "--target=es2020"]
        run(["npx", "esbuild", "vendor.js", *options, "--outfile=out.js", "--metafile=meta.json"], work)
        packages = bundled_packages(work)
        versions = {name: json.loads((work / name / "package.json").read_text())["version"] for name in packages}
        notices = licences(work, versions)
        # A page holds the bundle, and their licences ask that copies hold the notices.
        bundle = f"/*!\n{notices.replace('*/', '* /')}*/\n" + (work / "out.js").read_text(encoding="utf-8")
        if "</script" in bundle or "<!--" in bundle:
            raise SystemExit("the bundle cannot stand inside a script element")
        TARGET.mkdir(parents=True, exist_ok=True)
        (TARGET / "vendor.min.js").write_text(bundle, encoding="utf-8")
        (TARGET / "LICENSES.txt").write_text(notices, encoding="utf-8")
        about = {
            "packages": {str(Path(name).relative_to("node_modules")): version for name, version in versions.items()},
            "sha256": hashlib.sha256(bundle.encode("utf-8")).hexdigest(),
        }
        (TARGET / "vendor.json").write_text(json.dumps(about, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        print(f"{len(bundle):,} bytes of {len(packages)} packages in {TARGET}")


def run(command: list[str], folder: Path) -> None:
    subprocess.run(command, cwd=folder, check=True)


def bundled_packages(work: Path) -> list[str]:
    """Folders of the packages of which any code is in the bundle."""
    inputs = json.loads((work / "meta.json").read_text(encoding="utf-8"))["outputs"]["out.js"]["inputs"]
    used = [Path(name) for name, part in inputs.items() if part["bytesInOutput"] and name.startswith("node_modules/")]
    return sorted({str(Path(*path.parts[: 3 if path.parts[1].startswith("@") else 2])) for path in used})


def licences(work: Path, versions: dict[str, str]) -> str:
    texts = []
    for name, version in versions.items():
        file = next(path for path in sorted((work / name).iterdir()) if path.name.lower().startswith("license"))
        title = f"{Path(name).relative_to('node_modules')} {version}"
        texts.append(f"{title}\n{'=' * len(title)}\n\n{file.read_text(encoding='utf-8').strip()}\n")
    return "\n\n".join(texts)


if __name__ == "__main__":
    main()
