"""Follow-up questions by rule, in English and Japanese: told apart, and completed from a topic.

The rules know three kinds. A *reference* holds a pronoun whose noun is in an earlier turn ("How
does it scale?", 「その上限は?」). A *fragment* is a question without its predicate ("And in
Japanese?", 「では、ポートは?」) or asks for more of the same ("Tell me more", 「もっと詳しく」).
A *bare* question ("Why?", 「なぜ?」) is about the answer. Whatever they do not recognise stands
alone.
"""

import re
from enum import Enum

from services.text.terms import content_terms


class Kind(Enum):
    """How a question depends on the conversation."""

    STANDALONE = "standalone"
    REFERENCE = "reference"
    FRAGMENT = "fragment"
    BARE = "bare"


MAX_TOPIC_CHARACTERS = 60

# English ---------------------------------------------------------------------------------------

_EN_BARE = re.compile(
    r"(?:but |and |so )?(?:why|how|when|where|who|which|what)(?: (?:not|so|come|else|exactly|then"
    r"|is that|was that|though))?\W*|since when\W*|how (?:much|many|long|often)\W*|really\W*",
    re.IGNORECASE,
)
_EN_MORE = re.compile(
    r"(?:please |can you |could you |ok(?:ay)?,? )*(?:tell me more|say more|more(?: details?| info"
    r"(?:rmation)?)?|go on|continue|elaborate|explain(?: more| further| in (?:more )?detail)?"
    r"|be more specific|give (?:me |us )?(?:an? |some |another |more )*examples?"
    r"|(?:for|an|any|another) examples?|in (?:more detail|other words|short)|anything else"
    r"|what else)(?: please)?\W*",
    re.IGNORECASE,
)
_EN_LEAD = re.compile(r"(?:ok(?:ay)?,? |and|but|so|then|also|or|now)[\s,]+", re.IGNORECASE)
_EN_ABOUT = re.compile(r"(?:what|how) about\b|what if\b", re.IGNORECASE)
_EN_PREPOSITION = re.compile(
    r"(?:in|on|for|with|without|by|from|since|at|to|under|as|using|after|before) ", re.IGNORECASE
)
_EN_PREDICATE = re.compile(
    r"(?:what|how|why|when|where|who|whose|which|is|are|was|were|do|does|did|can|could|should"
    r"|will|would|may|must|has|have|tell|explain|describe|show|list|give|summari[sz]e|compare"
    r"|translate|find)\b",
    re.IGNORECASE,
)
# A singular pronoun that the last topic can take the place of.
_EN_IT = re.compile(r"\b(?P<owner>its)\b|\b(?P<thing>it|this|that)\b(?!['’])", re.IGNORECASE)
# Pronouns whose noun a rule cannot tell: several things, people, one of two.
_EN_OTHER = re.compile(
    r"\b(?:they|them|their|theirs|he|him|his|she|her|hers|these|those|the (?:former|latter|same"
    r"|first|second|third|last|other|others)(?: (?:one|ones))?|that one|this one)\b",
    re.IGNORECASE,
)
_EN_EXPLETIVE = re.compile(
    r"\b(?:is|was|does|would|will|has) it (?:\w+ )?(?:possible|necessary|safe|ok|okay|allowed|take"
    r"|mean to|make sense|been|true|better|worth|common|legal|important|recommended|required)\b"
    r"|\bit (?:is|was|takes?) (?:\w+ )?(?:possible|necessary|safe|to)\b|\bdoes it take\b",
    re.IGNORECASE,
)
# "that" and "this" as a pronoun: at the end or before a verb; else a conjunction or an article.
_EN_PRONOUN_PLACE = re.compile(
    r"\s*(?:[?.!,]|$|\b(?:is|was|does|do|did|can|could|will|would|should|work|works|mean|means|run"
    r"|happen|happens|in|on|for|with|to|from|by|at|and|or)\b)",
    re.IGNORECASE,
)
_EN_BOUNDARY = re.compile(r"[,;:.?!]|\b(?:and|or|but|when|if|because|while|after|before)\b", re.I)

_EN_ARTICLE = r"(?P<topic>(?:(?:the|a|an|our|your) )?[^\s,?.!;:]+(?: [^\s,?.!;:]+){0,5}?)"
_EN_TOPICS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"(?:what|who)(?:'s|’s| is| are| was| were) (?:the (?:purpose|role|meaning|point) of )?"
        rf"{_EN_ARTICLE}\W*$",
        r"(?:please )?(?:tell (?:me|us) about|explain|describe|summari[sz]e|define) "
        rf"{_EN_ARTICLE}\W*$",
        r"(?:how|why|when|where) (?:do|does|did|can|will|would|should|is|are) "
        rf"{_EN_ARTICLE} (?:work|scale|run|start|stop|fail|compare|perform|behave|differ|handle"
        r"|need|use|stored?|configured|installed"
        r"|built|restart|listen|look|come|get|make|find|support|store)\b",
        r"(?:how|where|when) (?:do|does|can|could|should|would) (?:i|we|you|one|someone) "
        r"(?:\w+ly )?\w+ (?:up )?"
        rf"{_EN_ARTICLE}(?: (?:in|on|with|for|to|from|at|by|when|using|without|as|into) .*|\W*)$",
        rf"(?:can|could|does|do|is|are|will|should) {_EN_ARTICLE} (?:run|work|support|use|need"
        r"|handle|scale|be|have|store|read|accept|available|free|open|able)\b",
    )
)
_EN_PERSONAL = re.compile(r"(?:i|we|you|it|this|that|they|he|she|there|me|us|one)\b", re.IGNORECASE)

# Japanese --------------------------------------------------------------------------------------

_JA_END = r"[?？。!！\s]*"
_JA_ASK = r"(?:ですか|でしょうか|なの(?:ですか)?|なんですか|のですか|だろう|か)?"
_JA_BARE = re.compile(
    rf"(?:それは|で、|では、|でも、?)?(?:なぜ|何故|どうして|なんで|いつ|いつから|誰|だれ|どこ|どうやって"
    rf"|どのように|どう|いくら|いくつ|本当|ほんとう?|というと){_JA_ASK}{_JA_END}"
)
_JA_MORE = re.compile(
    r"(?:では、?|じゃあ、?|それを)?"
    r"(?:もっと|もう少し|もうすこし|さらに|より|より一層)?"
    r"(?:詳しく|くわしく|詳細(?:に|を|は)?|具体的に(?:は)?|分かりやすく|わかりやすく|簡単に|簡潔に|短く|続けて"
    r"|続き(?:を|は)?|例(?:えば|は|を)|具体例(?:は|を)?|(?:他|ほか|その他)に(?:は|も)?(?:何か)?(?:ある|あります)?)"
    r"(?:教えて|説明して|話して|お願い|頼みます|知りたい|言うと|言って|挙げて|見せて)?"
    rf"(?:ください|下さい|くれますか|もらえますか|いただけますか|します|です)?{_JA_ASK}{_JA_END}"
)
_JA_LEAD = re.compile(
    r"(?:それでは|それじゃあ?|では|じゃあ?|それなら|あと|また|ちなみに|一方|ところで|で)[、,\s]+"
)
_JA_FRAGMENT = re.compile(
    rf"[^。?？]{{1,24}}(?:は|では|には|とは|だと|なら|だったら|の場合(?:は)?|のほうは|の方は|も)(?:{_JA_ASK}|どう(?:ですか|なる|なります(?:か)?|でしょうか)?){_JA_END}"
)
_JA_PREDICATE = re.compile(
    r"何|なに|なん|誰|だれ|どこ|いつ|なぜ|どれ|どの|いくつ|ますか|ですか|教えて|説明"
)
_JA_THING = re.compile(r"(?P<thing>(?:それ|これ|あれ)(?=[はがをにのでともへか]|って|から|より|、))")
_JA_OWNER = re.compile(r"(?P<owner>(?:その|この|あの)(?=[^\s、。]))")
_JA_PLACE = re.compile(r"(?P<thing>(?:そこ|ここ|そちら)(?=には|では|の|を|へ|から|に))")
_JA_OTHER = re.compile(
    r"それら|これら|あれら|彼ら?(?=[はがをにのもと])|彼女|前者|後者|両者|上記|先ほど|さっき|同じ(?:もの|こと|方法)"
    r"|[12１２一二]つ目|そっち|こっち"
)
# Conjunctions and set phrases that only look like pronouns.
_JA_NOT_PRONOUN = re.compile(
    r"それでは|それじゃ|それで[、も]|それから|それに(?:は)?[、加対]|それとも|それなら|それぞれ|そのため|その後|その他|そのまま"
    r"|そのもの|その際|その時|その上(?=[、で])|これから|これまで|このため|この(?:たび|度)|この(?:文書|文章|資料|ファイル|システム)|それほど|あの[、ー]"
)
_JA_TOPIC = re.compile(
    r"(?P<topic>[^、。?？!！\s][^、。?？!！]{0,40}?)(?:とは|って(?=何|なに|どう)|について|に関して|に関する|は|を|が)"
)
_JA_NOT_TOPIC = re.compile(
    r"何|なに|誰|だれ|どこ|いつ|どう|なぜ|どの|どれ|どんな|いくつ|^(?:私|僕|我々|皆)|それ|これ|あれ|その|この|あの"
)
_JA_BOUNDARY = re.compile(
    r"[、。,?？]|と$|や$|および$|及び$|とその$|または$|場合|とき|ので|から|が$"
)
_JA_SHORT = 24
# A short question without subject or object and without a name: both are in an earlier turn.
_JA_NO_SUBJECT = re.compile(
    r"(?!.*(?:[はがをの]|[A-Za-zァ-ヴ]{3}))[^。?？]{2,16}(?:ますか|ですか|でしょうか|のか|たか|るか)[?？。\s]*"
)


def kind_of(query: str, language: str) -> Kind:
    """How a (normalised) question depends on what was said before it."""
    return _kind_ja(query) if language == "ja" else _kind_en(query)


def topic_of(query: str, language: str) -> str:
    """What a question that stands alone is about; empty when no rule can tell."""
    topic = _topic_ja(query) if language == "ja" else _topic_en(query)
    return topic if 0 < len(topic) <= MAX_TOPIC_CHARACTERS else ""


def completed(query: str, language: str, topic: str) -> str:
    """The question with its pronoun replaced by the topic; empty when no rule can do it safely."""
    match = _reference_ja(query) if language == "ja" else _reference_en(query)
    if match is None:
        return ""
    if language == "ja":
        replacement = topic + ("の" if match.groupdict().get("owner") else "")
    else:
        replacement = f"{topic}'s" if match.groupdict().get("owner") else topic
        if match.start() == 0:
            replacement = replacement[0].upper() + replacement[1:]
    return query[: match.start()] + replacement + query[match.end() :]


def _kind_en(query: str) -> Kind:
    if _EN_BARE.fullmatch(query):
        return Kind.BARE
    if _EN_MORE.fullmatch(query):
        return Kind.FRAGMENT
    if _EN_OTHER.search(query) and not _antecedent(query, _EN_OTHER, _EN_BOUNDARY):
        return Kind.REFERENCE
    if _reference_en(query) is not None:
        return Kind.REFERENCE
    if _EN_ABOUT.match(_EN_LEAD.sub("", query, count=1)):
        return Kind.FRAGMENT
    lead = _EN_LEAD.match(query)
    rest = query[lead.end() :] if lead else query
    words = rest.split()
    if lead and not _EN_PREDICATE.match(rest) and len(words) <= 8:
        return Kind.FRAGMENT
    if rest.rstrip().endswith("?") and _EN_PREPOSITION.match(rest) and len(words) <= 4:
        return Kind.FRAGMENT
    return Kind.STANDALONE


def _reference_en(query: str) -> re.Match[str] | None:
    expletives = [match.span() for match in _EN_EXPLETIVE.finditer(query)]
    for match in _EN_IT.finditer(query):
        if any(start <= match.start() < end for start, end in expletives):
            continue
        word = match[0].lower()
        if word in ("this", "that") and not _EN_PRONOUN_PLACE.match(query, match.end()):
            continue
        if _has_antecedent(query[: match.start()], _EN_BOUNDARY):
            continue
        return match
    return None


def _antecedent(query: str, pronoun: re.Pattern[str], boundary: re.Pattern[str]) -> bool:
    match = pronoun.search(query)
    return match is not None and _has_antecedent(query[: match.start()], boundary)


def _has_antecedent(before: str, boundary: re.Pattern[str]) -> bool:
    """Whether the same question names something in a clause before the pronoun."""
    edges = [match.start() for match in boundary.finditer(before)]
    return bool(edges) and bool(content_terms(before[: edges[-1]]))


def _topic_en(query: str) -> str:
    text = _EN_LEAD.sub("", query, count=1).strip()
    for pattern in _EN_TOPICS:
        match = pattern.match(text)
        if match is None:
            continue
        topic = match["topic"].strip()
        if not _EN_PERSONAL.match(topic) and content_terms(topic):
            return topic
    return ""


def _kind_ja(query: str) -> Kind:
    if _JA_BARE.fullmatch(query):
        return Kind.BARE
    if _JA_MORE.fullmatch(query):
        return Kind.FRAGMENT
    if _JA_OTHER.search(query) and not _antecedent(query, _JA_OTHER, _JA_BOUNDARY):
        return Kind.REFERENCE
    if _reference_ja(query) is not None:
        return Kind.REFERENCE
    lead = _JA_LEAD.match(query)
    rest = query[lead.end() :] if lead else query
    fragment = _JA_FRAGMENT.fullmatch(rest) is not None and not _JA_PREDICATE.search(rest)
    if fragment and (lead or len(rest) <= _JA_SHORT):
        return Kind.FRAGMENT
    return Kind.BARE if _JA_NO_SUBJECT.fullmatch(rest) else Kind.STANDALONE


def _reference_ja(query: str) -> re.Match[str] | None:
    phrases = [match.span() for match in _JA_NOT_PRONOUN.finditer(query)]
    found = [
        match
        for pattern in (_JA_THING, _JA_OWNER, _JA_PLACE)
        for match in pattern.finditer(query)
        if not any(start <= match.start() < end for start, end in phrases)
        and not _has_antecedent(query[: match.start()], _JA_BOUNDARY)
    ]
    return min(found, key=lambda match: match.start(), default=None)


def _topic_ja(query: str) -> str:
    text = _JA_LEAD.sub("", query, count=1).strip()
    match = _JA_TOPIC.match(text)
    if match is None or _JA_NOT_TOPIC.search(match["topic"]):
        return ""
    return match["topic"].strip()
