"""Runs a page in headless Chromium, and a script of the test inside it."""

import html
import json
import re
import shutil
import subprocess

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--enable-unsafe-swiftshader", "--hide-scrollbars",
    "--virtual-time-budget=20000", "--window-size=1280,900", "--dump-dom",
)  # fmt: skip
HEAD = """<script>
window.faults = [];
window.onerror = (message) => { window.faults.push(String(message)); };
window.onunhandledrejection = (event) => { window.faults.push(String(event.reason)); };
const press = (target, key) => target.dispatchEvent(
  new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
const put = (input, value) => { input.value = value;
  input.dispatchEvent(new Event("input")); input.dispatchEvent(new Event("change")); };
</script>"""
END = """<pre id="outcome"></pre><script>
setTimeout(() => {
  const told = {};
  try { (function () { %s }).call(told); } catch (error) { faults.push(String(error)); }
  document.getElementById("outcome").textContent = JSON.stringify({ told, faults });
}, 3000);
</script></body>"""


def run(page, folder, script):
    """Returns what a script put into `this`, by its names; no error may have occurred.

    Skips the test where there is no Chromium.
    """
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip("Chromium is not installed: no page is opened (apt: chromium)")
    path = folder / "opened.html"
    text = page.replace("<head>", f"<head>{HEAD}", 1)
    place = text.rindex("</body>")
    path.write_text(text[:place] + (END % script) + text[place + len("</body>") :])
    profile = f"--user-data-dir={folder / 'profile'}"
    done = subprocess.run(
        [program, *FLAGS, profile, f"file://{path}"],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    found = re.search(r'<pre id="outcome">(.*?)</pre>', done.stdout, re.S)
    assert found, done.stderr[-2000:]
    outcome = json.loads(html.unescape(found.group(1)))
    assert outcome["faults"] == []
    return outcome["told"]
