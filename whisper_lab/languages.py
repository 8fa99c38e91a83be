"""What people call a language, to the code that Whisper's tokens carry: `Dutch`, `Nederlands` and `NL` are all nl.

Whisper's codes are those of ISO 639, a few of them outdated (jw, not jv, for Javanese); the English names are the
tokenizer's (openai-whisper's `tokenizer.py`), the native names are how the languages call themselves.
"""

WITHOUT_SPACES = frozenset({"zh", "yue", "ja", "th", "lo", "my", "km"})  # languages that put no spaces between words
# code: English name; other names, native ones among them
NAMES: dict[str, str] = {
    "af": "afrikaans", "am": "amharic; አማርኛ", "ar": "arabic; العربية", "as": "assamese",
    "az": "azerbaijani; azərbaycanca",
    "ba": "bashkir", "be": "belarusian; беларуская", "bg": "bulgarian; български", "bn": "bengali; bangla; বাংলা",
    "bo": "tibetan", "br": "breton; brezhoneg", "bs": "bosnian; bosanski", "ca": "catalan; valencian; català",
    "cs": "czech; čeština; česky", "cy": "welsh; cymraeg", "da": "danish; dansk", "de": "german; deutsch",
    "el": "greek; ελληνικά", "en": "english", "es": "spanish; castilian; español; castellano", "et": "estonian; eesti",
    "eu": "basque; euskara", "fa": "persian; farsi; فارسی", "fi": "finnish; suomi", "fo": "faroese; føroyskt",
    "fr": "french; français", "gl": "galician; galego", "gu": "gujarati", "ha": "hausa", "haw": "hawaiian",
    "he": "hebrew; עברית; iw", "hi": "hindi; हिन्दी", "hr": "croatian; hrvatski", "ht": "haitian creole; haitian",
    "hu": "hungarian; magyar", "hy": "armenian; հայերեն", "id": "indonesian; bahasa indonesia",
    "is": "icelandic; íslenska", "it": "italian; italiano", "ja": "japanese; 日本語", "jw": "javanese; jv; basa jawa",
    "ka": "georgian; ქართული", "kk": "kazakh; қазақша", "km": "khmer; ខ្មែរ", "kn": "kannada", "ko": "korean; 한국어",
    "la": "latin; latina", "lb": "luxembourgish; letzeburgesch; lëtzebuergesch", "ln": "lingala", "lo": "lao; ລາວ",
    "lt": "lithuanian; lietuvių", "lv": "latvian; latviešu", "mg": "malagasy", "mi": "maori; māori",
    "mk": "macedonian; македонски", "ml": "malayalam", "mn": "mongolian; монгол", "mr": "marathi; मराठी",
    "ms": "malay; bahasa melayu", "mt": "maltese; malti", "my": "myanmar; burmese", "ne": "nepali; नेपाली",
    "nl": "dutch; flemish; nederlands; vlaams", "nn": "nynorsk", "no": "norwegian; norsk; nb; bokmål", "oc": "occitan",
    "pa": "punjabi; panjabi; ਪੰਜਾਬੀ", "pl": "polish; polski", "ps": "pashto; pushto", "pt": "portuguese; português",
    "ro": "romanian; moldavian; moldovan; română", "ru": "russian; русский", "sa": "sanskrit", "sd": "sindhi",
    "si": "sinhala; sinhalese", "sk": "slovak; slovenčina; slovensky", "sl": "slovenian; slovenščina", "sn": "shona",
    "so": "somali", "sq": "albanian; shqip", "sr": "serbian; српски; srpski", "su": "sundanese",
    "sv": "swedish; svenska",
    "sw": "swahili; kiswahili", "ta": "tamil; தமிழ்", "te": "telugu; తెలుగు", "tg": "tajik", "th": "thai; ไทย",
    "tk": "turkmen", "tl": "tagalog; filipino", "tr": "turkish; türkçe", "tt": "tatar", "uk": "ukrainian; українська",
    "ur": "urdu; اردو", "uz": "uzbek", "vi": "vietnamese; tiếng việt", "yi": "yiddish; ייִדיש", "yo": "yoruba",
    "yue": "cantonese; 粵語; 粤语", "zh": "chinese; mandarin; 中文; 普通话",
}
CODES: dict[str, str] = {name: code for code, names in NAMES.items() for name in (code, *names.split("; "))}


def code(language: str) -> str:
    """`EN`, `<|en|>`, `en-GB`, `English` -> en. What is not a language's name is returned in lower case, for whoever
    knows the checkpoint's languages to refuse."""
    plain = " ".join(language.strip().removeprefix("<|").removesuffix("|>").casefold().split())
    region = plain.replace("_", "-").partition("-")[0]  # en-GB, pt_BR
    return CODES.get(plain) or (CODES[region] if region in NAMES else plain)


def name(language: str) -> str:
    """nl -> Dutch; a code that is not listed is its own name."""
    return NAMES.get(language, language).partition(";")[0].title() if language in NAMES else language
