"""Chinese numbers, dates, times and amounts in figures, in the customary style of China.

The text is read from the left. Wherever a number may begin, the first rule of ``_RULES`` that takes
it writes it; a whole run of numerals is always taken at once, so that no part of what does not
read as a number is rewritten.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from app.text.numerals_zh import DIGITS, NUMERALS, figures, value, written

_ONE: Final = "一二三四五六七八九"
_RUN: Final = f"[{NUMERALS}]+"
_NUMBER: Final = f"[{NUMERALS}]++(?:[点點][{DIGITS}]++)?"
_UNTIL_END: Final = r"(?!\w)"

_KEEP: Final = re.compile(
    # Words that end or begin with a numeral which belongs to no number.
    r"(?:[统統唯同单單万萬专專逐划归歸合之]一|初一十五|初[一二三四五六七八九十])(?![百千万亿萬億点點])"
    r"|(?:星期|礼拜|禮拜|[本上下每这]周|(?<![一二两三四五六七八九十百几半])周)[一二三四五六]"
    r"|(?:正|腊|臘|冬)月[初十廿二三][一二三四五六七八九十]?|大?年三十"
    r"|双十[一二]|雙十[一二]|十一(?=黄金周|长假|假期|期间|国庆)|[国國][庆慶]十一|一二九运动"
    # Fixed expressions.
    r"|七七八八|九一八|一千零一夜|一点一点|一点半点|[两三]点一线|最后一公里|十[六七八九]大|二十大"
    r"|七十二[变變]|三十六[计計]|三百六十行|十八(?:般|罗汉)|十三陵|十万(?:火急|个为什么|八千里)"
    r"|三十而立|四十不惑|五十(?:知天命|步笑)|六十[而耳]|三六九等|十(?:天半|年树木|年寒窗|月怀胎)"
    r"|二十四(?:史|孝)|五十六个民族"
)
_START: Final = re.compile(
    f"[{NUMERALS}负負统統唯同单單专專逐划归歸合之初星礼禮本上下每这周正腊臘冬大年双雙国國最]"
)
_NEEDS: Final = re.compile(f"[{DIGITS}幺两兩十]|[百千]分之百")

_WORD: Final = re.compile(
    # What begins with a digit after a pause that nobody hears: 下午三点一起去.
    r"一(?:[起样樣定直下些般会會切边邊旦共致同再路向齐齊次种種位场場群家]|个(?!百分点))"
    rf"|[{_ONE}][^\W{NUMERALS}元块塊米点點度年月日分秒毛角比][{_ONE}](?![{NUMERALS}点點])\w"
)
_WORD_AFTER_RUN: Final = re.compile("一[样樣定直下些般切旦共致](?!线|站)")
_COUNTED_ONE: Final = re.compile("一[年天个個月次名位条條件小]")
"""After 三千 it is no part of the number, which could end in 一 only before what has a price."""
_COUNTED: Final = re.compile(
    # After 十 alone, which is also a word (十分, 十足): what it counts.
    r"[个個位名人只隻条條张張件台辆輛元块塊毛天年月日号號岁歲秒米斤克吨升度倍层層楼页頁章节節"
    r"届屆期周亿億万萬多来來余寸亩%％]|分[钟鐘]|小[时時]|公[里斤分]|[千厘毫]米|点(?!头|滴)|平方|立方|摄氏|美元"
    rf"|[到至](?=[{NUMERALS}]*[十百千万萬])"
)
_UNIT: Final = re.compile(
    # After a single digit, which otherwise stays as it was spoken.
    r"公里|公斤|公分|千米|千克|厘米|毫米|毫升|毫克|平方米|立方米|平方公里|摄氏度|块钱|美元|欧元|英镑"
    rf"|日元|港元|港币|人民币|元(?![{NUMERALS}\d素旦月首老论論次宵凶帅帥件气氣器])"
)
_ONE_POINT: Final = re.compile(
    # 一点五 is a number before these only: 快一点五个人在等.
    r"个(?:百分点|小时|亿|月)|[倍万亿萬億米元块斤吨升度折寸版级小公千厘毫平立美%％GK]|百分点|[^\w-]|$"
)
_PERIODS: Final = (
    *("凌晨", "早上", "早晨", "清晨", "上午", "中午", "下午", "午后", "傍晚", "晚上", "夜里"),
    *("半夜", "深夜", "午夜", "今晚", "明晚", "昨晚", "今早", "明早", "当晚", "夜晚", "晚间"),
    *("夜裡", "午後", "當晚"),
)
_ADJECTIVE: Final = re.compile(r"[^\W的左开開到出起]")
"""What makes 十分 a word: 三点十分重要, but 三点十分的火车."""
_HOUR: Final = rf"(?:二十[一二三四]?|十[{_ONE}]?|[{_ONE}零〇两兩])"
_LAST_HOUR: Final = 24

Rule = Callable[[re.Match[str]], str | None]
"""What to write for the match; None if it is not what the rule is for."""


def needs(text: str) -> bool:
    """Whether there is anything that could be rewritten."""
    return _NEEDS.search(text) is not None


def rewrite(text: str) -> str:
    """``text`` with its numbers in figures."""
    parts: list[str] = []
    done = 0
    while (start := _START.search(text, done)) is not None:
        begin = start.start()
        parts.append(text[done:begin])
        taken, done = _taken(text, begin)
        parts.append(taken)
    parts.append(text[done:])
    return "".join(parts)


def _taken(text: str, begin: int) -> tuple[str, int]:
    """What to write for what begins at ``begin``, and where it ends."""
    if (kept := _KEEP.match(text, begin)) is not None:
        return kept[0], kept.end()
    for pattern, rule in _RULES:
        match = pattern.match(text, begin)
        if match is not None and (found := rule(match)) is not None:
            return found, match.end()
    return text[begin], begin + 1


def _follows(match: re.Match[str], pattern: re.Pattern[str]) -> bool:
    return pattern.match(match.string, match.end()) is not None


def _after(match: re.Match[str], *before: str) -> bool:
    return match.string.endswith(before, 0, match.start())


def _number(text: str) -> str | None:
    """A number with or without a fraction; digits read one by one are none."""
    whole, _, part = text.replace("點", "点").partition("点")
    number = written(whole)
    return number if number is None or not part else f"{number}.{figures(part)}"


# Dates


def _date(match: re.Match[str]) -> str | None:
    """二零二六年十一月二十日: 2026年11月20日; 五月三号到八号: 5月3号到8号; 五月 alone stays."""
    year = None if match["year"] is None else _year(match["year"])
    month = value(match["month"].lstrip("零〇"))
    if month is None or (year is None and (match["year"] or not match["day"])):
        return None
    written_year = "" if year is None else f"{year}年"
    day = "" if not match["day"] else str(value(match["day"].lstrip("零〇")))
    until = "" if not match["last"] else f"{match['to']}{value(match['last'])}{match['end']}"
    return f"{written_year}{month}月{match['part'] or ''}{day}{match['mark'] or ''}{until}"


def _year(text: str) -> str | None:
    if re.fullmatch(f"[{DIGITS}]{{2}}|[{DIGITS}]{{4}}", text):
        return figures(text)
    number = value(text)
    return str(number) if number is not None and number >= 10 else None


def _short_year(match: re.Match[str]) -> str | None:
    """九八年: 98年. An estimate stays: 七八年, 三五年."""
    year = figures(match[0])
    return None if int(year[1]) == int(year[0]) + 1 or year == "35" else year


# Times of day


def _clock(match: re.Match[str]) -> str | None:
    """下午三点三十分, 下午三点半: 下午3:30; 三点钟: 3点钟. 三点 alone stays: it may be a count."""
    hour = value(match["hour"])
    period = _after(match, *_PERIODS)
    if hour is None or hour > _LAST_HOUR or _after(match, "第"):
        return None
    if match["half"]:
        return f"{hour}:30"
    if match["quarter"]:
        return f"{hour}:{'15' if match['quarter'][0] == '一' else '45'}"
    if match["minute"]:
        return _with_minutes(match, hour, period)
    if (
        match["even"]
        or period
        or match["until"] is not None
        or _after(match, "点到", "点至", "钟到", "半到")
    ):
        return f"{hour}点{match['even'] or ''}"
    return None


def _with_minutes(match: re.Match[str], hour: int, period: bool) -> str | None:
    text, marked = match["minute"], match["fen"] is not None
    minute = value(text.lstrip("零〇"))
    if minute is None:
        return None
    if "十" not in text and not (period and (marked or text[0] in "零〇")):
        # 得了三点五分 is a score; 三点零五 may be 3.05, 三点零五分 is a time.
        if not (marked and text[0] in "零〇" and hour):
            return None
    elif text == "十" and marked and not period and _follows(match, _ADJECTIVE):
        return None  # 有三点十分重要
    second = "" if match["second"] is None else f":{value(match['second']):02}"
    return f"{hour}:{minute:02}{second}"


def _minutes_and_seconds(match: re.Match[str]) -> str | None:
    """三分二十秒: 3分20秒."""
    minutes, seconds = value(match["minutes"]), value(match["seconds"])
    return None if minutes is None or seconds is None else f"{minutes}分{seconds}秒"


# Shares and amounts


def _percent(match: re.Match[str]) -> str:
    """百分之二十: 20%; 百分之二十到三十: 20%到30%; 百分之五六 stays."""
    sign = "%" if match["of"] == "百" else "‰"
    first = "100" if match["number"] == "百" else _number(match["number"])
    last = None if match["last"] is None else _number(match["last"])
    if first is None or (match["last"] and last is None):
        return match[0]
    return f"{first}{sign}" + (f"{match['to']}{last}{sign}" if last else "")


def _fraction(match: re.Match[str]) -> str:
    """三分之一: 1/3. 万分之一 stays."""
    below, above = value(match["below"]), value(match["above"])
    return f"{above}/{below}" if below and below > 1 and above else match[0]


def _ratio(match: re.Match[str]) -> str | None:
    """三比二: 3:2."""
    left, right = _number(match["left"]), _number(match["right"])
    if left is None or right is None or _WORD.match(match.string, match.end() - 1):
        return None
    return f"{left}:{right}"


def _version(match: re.Match[str]) -> str:
    """三点二点一: 3.2.1."""
    return figures(re.sub("[点點]", ".", match[0]))


def _decimal(match: re.Match[str]) -> str | None:
    """三点一四: 3.14; 五点六万: 5.6万. 三点一起 and 快一点三个 are no numbers."""
    number = _number(match["number"])
    if number is None or _WORD.match(match.string, match.end("number") - 1):
        return None
    if len(match["number"]) == len("一点五") and match["number"][0] == "一":
        sure = _ONE_POINT.match(match.string, match.end("number")) is not None
        if not sure or _after(match, *"快慢早晚好"):
            return None
    return number + match["scale"]


def _negative(match: re.Match[str]) -> str | None:
    """负五度, 负三点五, 负一百: -5度, -3.5, -100. 负一楼 stays."""
    number = _number(match["number"])
    if number is None or _after(match, *"正胜勝担擔肩身背抱自欺辜"):
        return None
    if match["number"] in _ONE and not _follows(match, re.compile("度|摄氏度|攝氏度")):
        return None
    return f"-{number}"


def _frost(match: re.Match[str]) -> str | None:
    """零下三度到五度: 零下3度到5度."""
    first = _number(match["number"])
    last = None if match["last"] is None else _number(match["last"])
    if first is None or (match["last"] and last is None):
        return None
    return f"零下{first}度" + (f"{match['to']}{last}度" if last else "")


def _price(match: re.Match[str]) -> str | None:
    """三块五: 3块5; 十五元八角: 15元8角; 三十八度五: 38度5; 一米七五: 1米75."""
    number = written(match["number"])
    if number is None:
        return None
    rest = re.sub(f"[{_ONE}]", lambda digit: figures(digit[0]), match["rest"])
    return f"{number}{match['unit']}{rest}"


# Numbers


def _single(match: re.Match[str]) -> str | None:
    """A digit before a unit: 五公斤, 三美元, 五G."""
    return figures(match[0]) if _follows(match, _UNIT) else None


def _figure(match: re.Match[str]) -> str:
    return figures(match[0])


def _run(match: re.Match[str]) -> str:
    """A run of numerals: 一百二十三, 幺三八零零, and those that are no number as they are."""
    run = match[0]
    if re.fullmatch(f"[{DIGITS}幺]+", run):
        return figures(run) if len(run) > 2 or (len(run) > 1 and "幺" in run) else run
    if (
        match["some"]
        or _after(match, "几", "幾", "好几")
        or (run[0] == "十" and _after(match, "数"))
    ):
        return run
    if len(run) == 1:
        counts = run == "十" and _follows(match, _COUNTED) and not _after(match, "第")
        return "10" if counts else run
    if run[-1] == "一" and _is_word(match):
        return (written(run[:-1]) or run[:-1]) + run[-1] if len(run) > 2 else run
    return written(run) or run


def _is_word(match: re.Match[str]) -> bool:
    """The 一 at the end of a run belongs to what follows: 二十一样, 三千一年."""
    text, last = match.string, match.end() - 1
    if _WORD_AFTER_RUN.match(text, last):
        return True
    return text[last - 1] in "百千万萬亿億" and _COUNTED_ONE.match(text, last) is not None


_RULES: Final[tuple[tuple[re.Pattern[str], Rule], ...]] = tuple(
    (re.compile(pattern), rule)
    for pattern, rule in (
        (
            rf"零下(?P<number>{_NUMBER})度(?:(?P<to>[到至])(?P<last>{_NUMBER})度)?",
            _frost,
        ),
        (rf"[负負](?P<number>{_NUMBER})", _negative),
        (
            rf"(?P<of>[百千])分之(?P<number>百|{_NUMBER})(?![几幾多])"
            rf"(?:(?P<to>[到至])(?:[百千]分之)?(?P<last>{_NUMBER})(?![几幾多个個]))?",
            _percent,
        ),
        (rf"(?P<below>{_RUN})分之(?P<above>{_RUN})(?![几幾])", _fraction),
        (
            rf"(?:(?P<year>[{NUMERALS}]{{2,}})年)?(?P<month>十[一二]?|[零〇]?[{_ONE}])月(?P<part>份)?"
            rf"(?:(?P<day>三十一?|二?十[{_ONE}]?|[零〇]?[{_ONE}])(?P<mark>[日号號])"
            rf"(?:(?P<to>[到至])(?P<last>三十一?|二?十[{_ONE}]?|[{_ONE}])(?P<end>[日号號]))?)?"
            rf"(?![{_ONE}][日号號])",
            _date,
        ),
        (rf"[{DIGITS}]{{2}}(?=年(?![级級]))", _short_year),
        (rf"(?<=\d年[到至])[{DIGITS}]{{2}}(?=年)", _figure),
        (r"[零五六七八九]零(?=[后後]|年代)", _figure),
        (
            rf"(?P<hour>{_HOUR})[点點]"
            rf"(?:(?P<half>半)|(?P<quarter>[一三]刻)"
            rf"|(?P<minute>[零〇][{_ONE}]|[二三四五]?十[{_ONE}]?|[{_ONE}](?=分))(?![{NUMERALS}点點])"
            rf"(?:(?P<fen>分)(?![之钟鐘])(?:(?P<second>[{_ONE}十]+)秒)?|(?![分个個人名位天年元块塊度米]))"
            rf"|(?P<even>[钟鐘整])|(?:(?![{NUMERALS}])|(?={_WORD.pattern}))(?P<until>(?=[到至][{NUMERALS}]+[点點]))?)",
            _clock,
        ),
        (rf"(?P<minutes>[{_ONE}两十]+)分(?P<seconds>[{_ONE}十]+)秒", _minutes_and_seconds),
        (rf"(?P<left>{_NUMBER})比(?P<right>{_NUMBER})(?![比大小多少高低强強好])", _ratio),
        (rf"[{DIGITS}]+(?:[点點][{DIGITS}]++){{2,}}(?![{NUMERALS}点點])", _version),
        (
            rf"(?P<number>{_RUN}[点點][{DIGITS}]++)(?P<scale>[万亿萬億]?)(?![{NUMERALS}])"
            r"(?!个(?!百分点|点|亿|小时|钟头|月))",
            _decimal,
        ),
        (
            rf"(?P<number>{_RUN})(?P<unit>[块塊元度])(?P<rest>[{_ONE}]"
            rf"(?:[毛角](?:[{_ONE}]分?)?)?)(?=[钱錢的了吧呢吗啊]|{_UNTIL_END})",
            _price,
        ),
        (
            rf"(?P<number>{_RUN})(?P<unit>米)(?P<rest>[{_ONE}]{{2}}(?![个個人位米块张名])"
            rf"|[{_ONE}](?=[的左多]|{_UNTIL_END}))(?![{NUMERALS}点點])",
            _price,
        ),
        (rf"[{_ONE}](?=[GDK](?![A-Za-z]))", _figure),
        (rf"[{_ONE}两兩](?![{NUMERALS}])", _single),
        (rf"{_RUN}(?P<some>[几幾])?", _run),
    )
)
