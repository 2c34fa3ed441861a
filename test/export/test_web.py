"""The page of `asrprune export --web` in a real Chromium: the texts of torch for real recordings; keyboard; a small screen."""

import functools
import http.server
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asrprune.recognizer import Recognizer

ROOT = Path(__file__).resolve().parents[2]
RUNTIME = ROOT / "node_modules/onnxruntime-web"
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
WAIT_S = 60
STICKING_OUT = """return [...document.querySelectorAll("body *")].filter((element) => {
    const box = element.getBoundingClientRect();
    return box.width && (box.left < 0 || box.right > 360);
}).map((element) => element.outerHTML)"""
CONFIDENCES = "return [...document.querySelectorAll('#text span')].map((word) => +word.style.getPropertyValue('--confidence'))"

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed: pip install selenium")
Keys = pytest.importorskip("selenium.webdriver.common.keys").Keys
pytestmark = [
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no Chromium; Debian: apt install chromium chromium-driver"),
    pytest.mark.skipif(
        not RUNTIME.is_dir(), reason="no onnxruntime-web; run: npm install --no-save --no-package-lock onnxruntime-web"
    ),
]


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        """Print nothing."""


@pytest.fixture(scope="module")
def folder(page: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page with onnxruntime-web, as `npm install` leaves them."""
    folder = Path(shutil.copytree(page[0], tmp_path_factory.mktemp("served") / "page"))
    (folder / "node_modules").mkdir()
    (folder / "node_modules/onnxruntime-web").symlink_to(RUNTIME)
    return folder


@pytest.fixture(scope="module")
def browser(clips: list[Path]) -> Iterator[Any]:
    """A Chromium whose microphone hears the recording, again and again."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    microphone = f"--use-file-for-fake-audio-capture={clips[0]}"
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", microphone):
        options.add_argument(argument)
    for argument in ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def opened(browser: Any, folder: Path) -> Iterator[Callable[..., Any]]:
    """Serve a folder and open its page; return a function that looks for an element of the page."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    browser.get(f"http://127.0.0.1:{server.server_port}/")
    yield functools.partial(browser.find_element, "id")
    server.shutdown()
    server.server_close()


def wait(browser: Any, condition: Callable[[], object]) -> None:
    from selenium.webdriver.support.wait import WebDriverWait

    WebDriverWait(browser, WAIT_S, poll_frequency=0.05).until(lambda _: condition())


def is_ready(browser: Any) -> bool:
    return bool(browser.find_element("tag name", "body").get_attribute("data-ready"))


def press(browser: Any, keys: str) -> None:
    """Press keys as a person without a mouse does: they go to the element that has the focus."""
    from selenium.webdriver import ActionChains

    ActionChains(browser).send_keys(keys).perform()


@pytest.mark.parametrize("clip", range(3))
def test_the_texts_of_torch_at_three_depths(
    clip: int, browser: Any, opened: Any, page: tuple[Path, Path], clips: list[Path]
) -> None:
    torch, texts = Recognizer.load(page[1]), set()
    wait(browser, lambda: is_ready(browser))
    opened("file").send_keys(str(clips[clip]))
    for depth in (4, 3, 1):
        while int(opened("depth").get_attribute("value")) + 1 > depth:
            opened("depth").send_keys(Keys.ARROW_LEFT)
        wait(browser, lambda depth=depth: opened("text").get_attribute("data-depth") == str(depth))
        wait(browser, lambda: not opened("text").get_attribute("data-state"))
        expected = torch.transcribe(clips[clip], depth=depth)
        assert opened("text").text == expected.text
        confidences = browser.execute_script(CONFIDENCES)
        np.testing.assert_allclose(confidences, [word.confidence for word in expected.words], atol=1e-3)
        assert opened("depth").get_attribute("aria-valuetext") == f"{depth} of 4 layers"
        assert float(opened("rtf").text) > 0
        texts.add(expected.text)
    assert len(texts) == 3
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


@pytest.fixture
def phone(browser: Any) -> Iterator[None]:
    """A screen of 360 x 640 pixels."""
    size = {"width": 360, "height": 640, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    yield
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.usefixtures("phone")
def test_a_small_screen_without_a_mouse(browser: Any, opened: Any) -> None:
    """Tab goes to each control, Enter records, Space stops, arrows choose the depth; nothing sticks out of the screen."""
    wait(browser, lambda: is_ready(browser))
    focused = "return document.activeElement.id"
    press(browser, Keys.TAB)
    assert browser.execute_script(focused) == "record"
    press(browser, Keys.ENTER)
    wait(browser, lambda: opened("record").text == "Stop")
    time.sleep(1)  # what is recorded
    press(browser, Keys.SPACE)
    wait(browser, lambda: opened("text").get_attribute("data-depth") == "4")
    press(browser, Keys.TAB)
    assert browser.execute_script(focused) == "file"
    for _ in range(20):  # past the buttons of the player
        press(browser, Keys.TAB)
        if browser.execute_script(focused) == "depth":
            break
    press(browser, Keys.ARROW_LEFT + Keys.ARROW_LEFT)
    wait(browser, lambda: opened("text").get_attribute("data-depth") == "2")
    assert float(opened("rtf").text) > 0
    assert len(browser.find_elements("css selector", "#chart circle")) == 4
    assert browser.find_element("css selector", "#chart .value").text == "30.0 %"
    assert browser.execute_script(STICKING_OUT) == []


def test_the_microphone(browser: Any, opened: Any) -> None:
    wait(browser, lambda: is_ready(browser))
    opened("record").click()
    wait(browser, lambda: opened("record").text == "Stop")
    time.sleep(1.5)  # what is recorded
    opened("record").click()
    wait(browser, lambda: opened("text").get_attribute("data-depth"))
    assert opened("text").text
    assert float(opened("duration").text.removesuffix(" s")) > 0.5


def test_a_file_without_audio_is_refused_with_a_sentence(browser: Any, opened: Any) -> None:
    wait(browser, lambda: is_ready(browser))
    opened("file").send_keys(str(Path(__file__)))
    wait(browser, lambda: opened("error").is_displayed())
    assert opened("error").text.startswith("test_web.py: is not audio that this browser can decode")


def test_a_missing_runtime_is_told(browser: Any, page: tuple[Path, Path], tmp_path: Path) -> None:
    bare = Path(shutil.copytree(page[0], tmp_path / "page"))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(bare)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    browser.get(f"http://127.0.0.1:{server.server_port}/")
    wait(browser, lambda: browser.find_element("id", "error").is_displayed())
    assert "run `npm install onnxruntime-web`" in browser.find_element("id", "error").text
    server.shutdown()
    server.server_close()
