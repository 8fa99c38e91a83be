"""Names of languages: whatever people write, wherever they write it."""

import json
import shutil

import pytest

from whisper_lab import checkpoints, flags, languages
from whisper_lab.console import LabError
from whisper_lab.tokens import TokenRules


@pytest.mark.parametrize("written, code", [
    ("nl", "nl"), ("NL", "nl"), ("dutch", "nl"), ("Dutch", "nl"), ("Nederlands", "nl"), ("<|nl|>", "nl"),
    ("Vlaams", "nl"), ("EN", "en"), ("en-GB", "en"), ("English", "en"), ("JA", "ja"), ("日本語", "ja"),
    ("Deutsch", "de"), ("Français", "fr"), ("ESPAÑOL", "es"), ("Русский", "ru"), ("haitian  Creole", "ht"),
    ("zh_TW", "zh"), ("jv", "jw"), ("xx", "xx"), ("Klingon", "klingon"), ("no", "no"), ("yue", "yue")])
def test_codes(written, code):
    assert languages.code(written) == code


def test_every_name_of_the_tokenizer_is_known():
    checkpoints.import_transformers()
    from transformers.models.whisper.tokenization_whisper import LANGUAGES, TO_LANGUAGE_CODE

    assert set(languages.NAMES) == set(LANGUAGES)
    assert {name: languages.code(name) for name in TO_LANGUAGE_CODE} == TO_LANGUAGE_CODE
    names = [name for names in languages.NAMES.values() for name in names.split("; ")]
    assert len(set(names)) == len(names) and not set(names) & set(languages.NAMES)  # none means two


def test_the_flag_takes_names():
    parser = flags.parser("", "language")
    assert flags.parse(parser, ["--language", "Nederlands"]).language == "nl"
    assert flags.parse(parser, []).language is None


def test_rules_take_names(nano):
    rules = TokenRules.from_folder(nano)
    assert rules.prompt("Nederlands") == rules.prompt("nl") != rules.prompt("EN") == rules.prompt("en")
    with pytest.raises(LabError, match="does not know the language 'klingon'"):
        rules.prompt("Klingon")


def copied(nano, folder, **changes):
    for name in ("config.json", "tokenizer.json", "preprocessor_config.json", "generation_config.json"):
        shutil.copy(nano / name, folder)
    path = folder / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return TokenRules.from_folder(folder)


def test_english_only_checkpoints_take_every_way_to_say_english(nano, tmp_path):
    rules = copied(nano, tmp_path, is_multilingual=False)
    assert rules.prompt("EN") == rules.prompt("English") == rules.prompt()
    with pytest.raises(LabError, match="English-only"):
        rules.prompt("Dutch")


@pytest.mark.parametrize("written", ["nl", "dutch", "<|nl|>"])
def test_the_checkpoint_may_name_its_language(nano, tmp_path, written):
    rules = copied(nano, tmp_path, language=written)
    assert rules.wanted_language(None) == "nl" and rules.wanted_language("English") == "en"
    assert TokenRules.from_folder(nano).wanted_language(None) is None
