"""The page: record or upload, save, look, transcribe. Whose recording is whose is kept per visitor.

What a visitor sends is a file in this program's own upload folder, made by Gradio; nothing else is ever opened.
"""

import functools
import os
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from whisper_lab import audio, console, files
from whisper_lab.console import LabError
from whisper_lab.record import examples, facts, middleware, picture
from whisper_lab.record.listener import Listener
from whisper_lab.record.save import Saved
from whisper_lab.record.serve import KEEP_S

# What the browser makes of a recording. Opus, the codec of most, works at this rate whatever the microphone has: only
# the lesson converts the sound then, and "arrived as" is true.
RECORDED_RATE = 48_000  # Hz
HERE = Path(__file__).resolve().parent
LARGEST_COPY = 3600 * 2 * audio.SAMPLE_RATE + 1_000_000  # bytes: an hour of 16-bit sound, and a picture

INSECURE = """() => window.isSecureContext && navigator.mediaDevices ? "" :
"<p class='lab-advice'>This page is not secure, so the browser keeps the microphone shut; uploads work. " +
"See below how to open it.</p>" """

# After Stop a recording is still on its way here, and a click would find nothing: the buttons rest until it arrives.
REST = "() => Array(2).fill({__type__: 'update', interactive: false})"
WAKE = "() => Array(2).fill({__type__: 'update', interactive: true})"

# On a telephone the transcript would appear below what is seen.
LOOK = """() => { if (document.querySelector('#text').getBoundingClientRect().bottom > innerHeight - 80)
document.querySelector('#transcribe').scrollIntoView({block: 'start', behavior: 'smooth'}); }"""

TITLE = """# Record a sentence
It becomes `speech.wav` on the machine that runs this page: 16 kHz, mono, 16-bit, what Whisper hears."""
KEPT_AS = {"txt": "Text .txt", "srt": "Subtitles .srt", "vtt": "Subtitles .vtt"}  # a file's ending -> its button
SHARED = """When several people use this page at once, each downloads and transcribes their own; `speech.wav` is the
recording that was saved last, those before it are in `recordings/`."""
WAYS = """
A browser gives the microphone only to a secure page: `localhost`, or https. From another computer, in this order:

1. **VS Code over SSH** forwards the port: panel *Ports*, *Forward a Port*, the number in the address above. Then open
   `http://localhost:PORT` on your own computer. Nothing else is needed.
2. **`--share`** prints a public https address, `https://....gradio.live`, and a password. Sound and text then pass
   through the servers of gradio.live, which can read them.
3. **`--host 0.0.0.0 --https`** serves the local network with a certificate made on the spot; the browser warns, compare
   the fingerprint in the terminal.

Uploads and downloads are deleted after an hour; without `--share` nothing is sent to anybody else.
"""


@dataclass
class Mine:
    """What one visitor recorded and saved; lives in Gradio's session state."""

    arrived: str  # the upload that was saved: tells whether another one has come since
    saved: Saved
    download: Path  # this visitor's own copy; speech.wav may meanwhile be somebody else's


class Recorder:
    """What the two buttons do. A visitor's `Mine` comes from the page and goes back to it."""

    def __init__(self, convert: Callable[[Path], tuple[Saved, np.ndarray]], listener: Listener, folder: Path):
        self.convert, self.listener, self.folder = convert, listener, folder

    def save(self, arrived: str | None, mine: Mine | None, width: float | None = None):
        """The button Save Recording: values for mine, report, download, player, picture."""
        import gradio

        try:
            mine = self._keep(arrived, width)
        except LabError as error:
            return [mine, facts.trouble(error, arrived), *(gradio.update(visible=False) for _ in range(3))]
        return [mine, facts.as_html(mine.saved), *_shown(mine)]

    def transcribe(self, arrived: str | None, mine: Mine | None, choice: str, language: str | None = None,
                   width: float | None = None):
        """The button Transcribe: what was saved; saves first where something new was recorded.

        width: of the visitor's window in pixels, for the picture.
        """
        import gradio

        try:
            if mine is None or (arrived and arrived != mine.arrived):
                mine = self._keep(arrived, width)
            if not mine.download.is_file():
                raise LabError("that recording is over an hour old and was deleted", "save it again, or record again")
            sound = audio.load(mine.download)
            heard = self.listener.transcribe(sound.samples, choice, language)
        except LabError as error:
            return [mine, facts.trouble(error, arrived), *(gradio.skip() for _ in range(3)), *_no_text()]
        doubt = facts.warning(heard.warning) if heard.warning else ""
        return [mine, facts.as_html(mine.saved), *_shown(mine), doubt, heard.text, heard.how,
                *_to_keep(mine, heard.files)]

    def open(self, arrived: str | None, mine: Mine | None, choice: str) -> Iterator[list]:
        """Before `transcribe`: takes the old text away, opens the model, and says what is being done meanwhile."""
        yield _no_text()
        if not arrived and mine is None:
            return  # `transcribe` says so
        try:
            for line in self.listener.opening(choice):
                yield _no_text(line)
        except LabError:
            return  # `transcribe` meets it again, and says it when the recording is saved

    def example(self, label: str) -> str:
        """A button under the recorder: the clip, as if it had been uploaded."""
        import gradio

        try:
            middleware.check_room(self.folder, examples.size(label))
            return str(examples.copy(label, self._place()))
        except LabError as error:
            raise gradio.Error(f"{error.problem}: {error.remedy}") from error

    def _keep(self, arrived: str | None, width: float | None) -> Mine:
        middleware.check_room(self.folder, LARGEST_COPY)
        saved, samples = self.convert(own(arrived, self.folder))
        place = self._place()
        audio.write_wav(place / "speech.wav", samples)
        picture.draw(samples, *self.listener.spec(), place / "speech.png", picture.layout_for(width))
        console.note("saved", saved.path, f"{saved.duration:.2f} s")
        return Mine(arrived, saved, place / "speech.wav")

    def _place(self) -> Path:
        """A new folder at an address that no one else can guess."""
        place = self.folder / secrets.token_urlsafe(16)
        place.mkdir()
        return place


def _shown(mine: Mine) -> list:
    """Download, player and picture. Paths, not samples: those would be scaled to full volume for the player."""
    import gradio

    paths = (mine.download, mine.download, mine.download.with_suffix(".png"))
    return [gradio.update(value=str(path), visible=True) for path in paths]


def _no_text(how: str = "") -> list:
    """Warning, text, how, files to keep: nothing."""
    import gradio

    return ["", "", how, *(gradio.update(visible=False) for _ in KEPT_AS)]


def _to_keep(mine: Mine, made: dict[str, str]) -> list:
    """The buttons that download text and subtitles, once there are any: files beside the recording, gone with it."""
    import gradio

    return [gradio.update(value=str(files.write_text(mine.download.with_suffix(f".{ending}"), made[ending])),
                          visible=True) if ending in made else gradio.update(visible=False) for ending in KEPT_AS]


def build(convert: Callable[[Path], tuple[Saved, np.ndarray]], listener: Listener, folder: Path, limit_s: float):
    """The page as gradio.Blocks. convert: 01's lesson; folder: for uploads and downloads."""
    import gradio

    recorder = Recorder(convert, listener, folder)
    with gradio.Blocks(title="Record speech.wav", analytics_enabled=False) as page:
        gradio.Markdown(TITLE)
        if introduction := listener.introduction():
            gradio.Markdown(introduction, elem_id="knows")
        insecure, mine = gradio.HTML(elem_id="insecure"), gradio.State(None, time_to_live=KEEP_S)
        width = gradio.Number(0, visible=False)
        with gradio.Row():
            sound, clips, save_button = _voice(limit_s)
            choice, language, transcribe_button, *answer = _words(listener)
        with gradio.Row():
            shown = _sound_of_it()
        gradio.Markdown(SHARED)
        with gradio.Accordion("No microphone?", open=False):
            gradio.Markdown(WAYS)
        results = [mine, *shown]
        save_button.click(recorder.save, [sound, mine, width], results, api_name="save", concurrency_limit=2)
        _listen_on_click(recorder, transcribe_button, [sound, mine, choice, language, width], results, answer)
        for button in clips:
            button.click(functools.partial(recorder.example, button.value), None, sound, api_visibility="private",
                         show_progress="hidden")
        _rest_while_recording(sound, [save_button, transcribe_button])
        page.load(None, None, insecure, js=INSECURE)
        page.load(None, None, width, js="() => innerWidth")
    return page


def _listen_on_click(recorder: Recorder, button, given: list, results: list, answer: list) -> None:
    """Transcribe: first the model is opened, which is shown, and then it hears. given: sound, state, way, language,
    width."""
    button.click(None, None, None, js=LOOK)
    shown = {"show_progress": "minimal", "show_progress_on": answer[1]}
    opened = button.click(recorder.open, given[:3], answer, api_visibility="private", **shown)
    opened.then(recorder.transcribe, given, [*results, *answer], api_name="transcribe", **shown)


def _rest_while_recording(sound, buttons: list) -> None:
    """What is being recorded cannot be saved yet: the buttons wait for it."""
    sound.start_recording(None, None, buttons, js=REST)
    for arrival in (sound.change, sound.clear):
        arrival(None, None, buttons, js=WAKE)


def _voice(limit_s: float) -> tuple:
    """Recorder, examples, Save Recording."""
    import gradio

    with gradio.Column(min_width=320):
        sound = gradio.Audio(sources=["microphone", "upload"], type="filepath", format=None,
                             label=f"Your voice, at most {limit_s / 60:g} minutes", elem_id="recorder",
                             waveform_options=gradio.WaveformOptions(sample_rate=RECORDED_RATE), buttons=[])
        sound.async_move_resource_to_block_cache = refuse_addresses(sound.async_move_resource_to_block_cache)
        with gradio.Row(elem_id="examples", visible=bool(examples.labels())):
            gradio.HTML("or an example:", padding=False)
            clips = [gradio.Button(label, size="sm", min_width=0) for label in examples.labels()]
        save_button = gradio.Button("Save Recording", variant="primary", elem_id="save")
    return sound, clips, save_button


def _words(listener: Listener) -> tuple:
    """Choice of a runtime and a language, Transcribe; the warning above the text, how it came about, files to keep."""
    import gradio

    with gradio.Column(min_width=320, scale=2):
        with gradio.Row(equal_height=True):
            choice = gradio.Dropdown(listener.choices(), label="Transcribe with", elem_id="choice", min_width=200)
            language = gradio.Dropdown(listener.languages(), value=listener.language or "", label="Language",
                                       elem_id="language", min_width=200)
            transcribe_button = gradio.Button("Transcribe", variant="primary", elem_id="transcribe", min_width=120)
        doubt = gradio.HTML(elem_id="doubt")
        text = gradio.Textbox(label="Transcript", lines=2, elem_id="text", buttons=["copy"])
        how = gradio.Markdown(elem_id="how")
        with gradio.Row(elem_id="keep"):
            kept = [gradio.DownloadButton(label, visible=False, elem_id=f"keep-{ending}", size="sm", min_width=0)
                    for ending, label in KEPT_AS.items()]
    return choice, language, transcribe_button, doubt, text, how, *kept


def _sound_of_it() -> tuple:
    """What was saved, and its download; player and picture."""
    import gradio

    with gradio.Column(min_width=320):
        report = gradio.HTML(elem_id="report")
        download = gradio.DownloadButton("Download speech.wav", visible=False, elem_id="download")
    with gradio.Column(min_width=320, scale=2):
        player = gradio.Audio(label="What was saved: your last recording, as Whisper gets it", visible=False,
                              interactive=False, buttons=[], elem_id="player")
        image = gradio.Image(label="Waveform and log-mel spectrogram", show_label=False, visible=False,
                             interactive=False, buttons=["fullscreen"], elem_id="picture")
    return report, download, player, image


def own(arrived: str | None, folder: Path) -> Path:
    """The upload, if it is one: a plain file inside `folder`, not a link out of it. Raises LabError otherwise."""
    if not arrived:
        raise LabError("there is no recording yet", "press Record, speak, press Stop; or upload a sound file")
    path = Path(arrived)
    if not path.resolve().is_relative_to(folder.resolve()) or path.is_symlink():
        raise LabError("that is not a recording made on this page", "record or upload one")
    return path


def refuse_addresses(move):
    """Gradio would fetch a recording that names an address on the web; this page takes what is sent to it only."""
    async def checked(path):
        if path is not None and "://" in os.fspath(path):
            raise ValueError("an address is not a recording")
        return await move(path)

    return checked
