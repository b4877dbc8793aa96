"""The picture of the page in the README, of a real sweep: the service, a worker, headless Chromium.

    python -m benchmarks.support.screenshot [--document examples/quickstart.yaml] [--out docs/page.png]

Runs the document on this machine, to its end, and takes the first view of its page.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import yaml
from playwright.sync_api import sync_playwright

from benchmarks.support.processes import running_service, running_worker
from layersweep import Client
from tests.browser.chromium import CHROMIUM
from tests.browser.conftest import settled

SIZE = {"width": 1180, "height": 1060}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--document", type=Path, default=Path("examples/quickstart.yaml"))
    parser.add_argument("--out", type=Path, default=Path("docs/page.png"))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with running_service(folder) as url, running_worker(url, folder):
            sweep = Client(url).submit(yaml.safe_load(given.document.read_text()))
            sweep.wait()
            with sync_playwright() as running:
                browser = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
                page = browser.new_page(viewport=SIZE, color_scheme="light", reduced_motion="reduce")
                page.goto(f"{url}/sweeps/{sweep.id}")
                settled(page)
                content = page.screenshot(path=given.out)
                print(f"{given.out}: {len(content):,} bytes")
                browser.close()


if __name__ == "__main__":
    main()
