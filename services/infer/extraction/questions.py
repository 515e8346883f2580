"""What kind of answer a question asks for, and whether a sentence holds one."""

import re
from enum import Enum

from services.text.normalize import normalize


class Kind(Enum):
    """Kinds of answers that leave a mark in a sentence."""

    NUMBER = "number"
    TIME = "time"
    PERSON = "person"
    PLACE = "place"
    REASON = "reason"
    METHOD = "method"
    DEFINITION = "definition"
    OTHER = "other"


_ASKS: tuple[tuple[Kind, re.Pattern[str]], ...] = (
    (
        Kind.TIME,
        re.compile(
            r"\bwhen\b|\b(?:what|which|in what) (?:year|date|day|month|century|time)\b"
            r"|いつ|何年|何月|何日|何時|何世紀|何曜日|何時代|年代"
        ),
    ),
    (
        Kind.NUMBER,
        re.compile(
            r"\bhow (?:many|much|long|old|often|big|large|fast|far|tall|high|deep)\b"
            r"|\b(?:what|which|on what) (?:\w+ )?(?:port|number|version|size|limit|rate|code)\b"
            r"|いくつ|いくら|何ポート|何番|何人|何個|何台|何回|何件|何歳|何代|何位|何本|何枚|何倍|何割|何分|何秒"
            r"|何種類|何カ国|何か国|何(?:キロ|メートル|センチ|パーセント|%|バイト|mb|gb|km|m\b)"
            r"|どれ(?:くらい|ぐらい|だけ)|どの(?:くらい|ぐらい|程度)|ポート番号|人口は|割合は|バージョンは"
        ),
    ),
    (
        Kind.PERSON,
        re.compile(r"\bwho(?:m|se)?\b|誰|だれ|何者|どなた|何という人|人物は|名前は"),
    ),
    (
        Kind.PLACE,
        re.compile(
            r"\bwhere\b"
            r"|\b(?:what|which) (?:city|country|place|town|state|region|directory|folder|file)\b"
            r"|どこ|何県|何市|何国|どの(?:国|都市|県|地域|場所|州|町)|場所は"
        ),
    ),
    (Kind.REASON, re.compile(r"\bwhy\b|\breasons?\b|なぜ|何故|どうして|理由|原因|なんで")),
    (
        Kind.METHOD,
        re.compile(
            r"\bhow (?:do|does|can|to|should|is|are|would)\b|どうやって|どのように|方法|手順|やり方"
        ),
    ),
    (
        Kind.DEFINITION,
        re.compile(
            r"^\s*(?:what|who) (?:is|are|was|were) |\bwhat does .* (?:do|mean)\b"
            r"|とは(?:何|なん|どんな|どういう|[?？。]|$)|(?:って|は)(?:何|なん)(?:です|でしょう|か|[?？]|$)"
        ),
    ),
)

_MARKS: dict[Kind, re.Pattern[str]] = {
    Kind.NUMBER: re.compile(
        r"\d|[一二三四五六七八九十百千万]+(?:人|個|つ|年|回|代|本|種|倍|割|名|台|番|度)"
        r"|\b(?:one|two|three|four|five|six|seven|eight|nine|ten|dozen|hundred|thousand|million)\b",
        re.IGNORECASE,
    ),
    Kind.TIME: re.compile(
        r"\d{3,4}\s*年|\d+\s*(?:月|日|時|世紀)|世紀|時代|昭和|平成|令和|明治|大正|年代|午前|午後"
        r"|[春夏秋冬](?:に|の|から)|以降|以前|当時"
        r"|\b(?:1\d{3}|20\d{2})\b|\b(?:january|february|march|april|may|june|july|august|september"
        r"|october|november|december|century|yesterday|today|monday|tuesday|wednesday|thursday"
        r"|friday|saturday|sunday|daily|weekly|seconds?|minutes?|hours?|days?)\b",
        re.IGNORECASE,
    ),
    Kind.PERSON: re.compile(
        r"[ァ-ヶー]{2,}・[ァ-ヶー]{2,}|氏|さん|博士|王|皇帝|天皇|大統領|首相|監督|作家|教授|将軍|選手|知事|者"
        r"|\b[A-Z][a-z]+ [A-Z][a-z]+|\b(?:team|operator|author|president|director)s?\b"
    ),
    Kind.PLACE: re.compile(
        r"[県市国州町村区島駅湾川山港都府]|大陸|地方|地域|大学|[ァ-ヶー]{3,}"
        r"|\b(?:in|at|on|under|near|from|to) (?:the )?[`\"'A-Z/~]|[\w.-]+/[\w.-]*|\blocated\b"
    ),
    Kind.REASON: re.compile(
        r"ため|から|ので|よる|より|理由|原因|ゆえ|おかげ|\bbecause\b|\bsince\b|\bdue to\b"
        r"|\bso that\b|\btherefore\b|\breasons?\b|\bthus\b|\bin order to\b",
        re.IGNORECASE,
    ),
    Kind.METHOD: re.compile(
        r"`[^`]+`|ことで|によって|により|を使|を用|して(?:ください|下さい)|手順|コマンド|設定"
        r"|\b(?:run|use|using|set|by \w+ing|call|send|start|install|open|add|type|click|command)\b",
        re.IGNORECASE,
    ),
    Kind.DEFINITION: re.compile(
        r"とは|である|(?:は|が)[^。]{2,60}(?:です|の一種|のこと|をいう|を指す)"
        r"|\b(?:is|are|means|refers to)\b"
    ),
}
_DIGITS = re.compile(r"\d+")


def kind_of(question: str) -> Kind:
    """What `question` asks for; the first kind whose words it holds."""
    asked = normalize(question).lower()
    return next((kind for kind, pattern in _ASKS if pattern.search(asked)), Kind.OTHER)


def holds(kind: Kind, sentence: str, question: str) -> bool:
    """Whether `sentence` holds an answer of this kind that does not stand in the question."""
    pattern = _MARKS.get(kind)
    if pattern is None:
        return False
    text = normalize(sentence)
    if kind in (Kind.NUMBER, Kind.TIME) and _DIGITS.search(text):
        asked = set(_DIGITS.findall(normalize(question)))
        if asked and not set(_DIGITS.findall(text)) - asked:
            return False
    return pattern.search(text) is not None
