import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.text import inverse, inverse_en, inverse_zh
from app.text.inverse import inverse_normalize
from app.text.normalise import Normalizer
from app.text.numerals_zh import NUMERALS, value

NORMALIZER = Normalizer()

CHINESE = {
    "date": [
        ("今天是二零二六年十一月二十日。", "今天是2026年11月20日。"),
        ("二〇二六年五月", "2026年5月"),
        ("两千零二十六年一月一日", "2026年1月1日"),
        ("五月三号到八号", "5月3号到8号"),
        ("十月一号星期四", "10月1号星期四"),
        ("十一月", "11月"),
        ("一九九八年", "1998年"),
        ("九八年", "98年"),
        ("零八年六月", "08年6月"),
        ("一九年到二三年", "19年到23年"),
        ("九零后和九十年代", "90后和90年代"),
        ("二十号", "20号"),
        ("星期三二十号", "星期三20号"),
        ("周三十点开会", "周三10点开会"),
    ],
    "time": [
        ("下午三点三十分", "下午3:30"),
        ("下午三点半", "下午3:30"),
        ("下午三點半", "下午3:30"),
        ("晚上八点二十", "晚上8:20"),
        ("早上八点零五分", "早上8:05"),
        ("凌晨零点三十分", "凌晨0:30"),
        ("上午十点五分", "上午10:05"),
        ("十二点四十五分十秒", "12:45:10"),
        ("三点一刻到三点三刻", "3:15到3:45"),
        ("下午三点", "下午3点"),
        ("三点钟", "3点钟"),
        ("七点到八点", "7点到8点"),
        ("下午三点到五点半", "下午3点到5:30"),
        ("十一点", "11点"),
        ("十点十分的火车还有十分钟", "10:10的火车还有10分钟"),
        ("下午三点一起吃饭", "下午3点一起吃饭"),
        ("三分二十秒", "3分20秒"),
        ("三十秒", "30秒"),
    ],
    "money": [
        ("三点一四元", "3.14元"),
        ("十五块钱", "15块钱"),
        ("三块钱", "3块钱"),
        ("三块五", "3块5"),
        ("三块五毛", "3块5毛"),
        ("十五元八角。", "15元8角。"),
        ("五元", "5元"),
        ("五十美元", "50美元"),
        ("人民币五千元", "人民币5000元"),
    ],
    "share": [
        ("百分之二十", "20%"),
        ("百分之五", "5%"),
        ("百分之三点五", "3.5%"),
        ("百分之百", "100%"),
        ("百分之二十到三十", "20%到30%"),
        ("千分之三", "3‰"),
        ("三分之一", "1/3"),
        ("三比二", "3:2"),
        ("今天涨了一点五个百分点", "今天涨了1.5个百分点"),
    ],
    "number": [
        ("一百二十三", "123"),
        ("十五", "15"),
        ("十个人", "10个人"),
        ("一百零一", "101"),
        ("三千五", "3500"),
        ("一万两千三百四十五", "12345"),
        ("三万五百", "30500"),
        ("三百万", "300万"),
        ("三百萬", "300萬"),
        ("一亿两千万", "1亿2000万"),
        ("一万亿", "1万亿"),
        ("一百五十六万三千", "1563000"),
        ("五点六万", "5.6万"),
        ("零点五", "0.5"),
        ("两点五", "2.5"),
        ("二十多个", "20多个"),
        ("第十二名", "第12名"),
        ("负三点五", "-3.5"),
        ("零下五度", "零下5度"),
        ("零下三度到五度", "零下3度到5度"),
        ("三十八度五", "38度5"),
        ("身高一米七五体重", "身高1米75体重"),
        ("一米八的个子", "1米8的个子"),
        ("十到二十个", "10到20个"),
        ("一个月三千一年三万六", "一个月3000一年36000"),
        ("三百六十度", "360度"),
        ("六十五公斤", "65公斤"),
        ("两公里", "2公里"),
        ("统一二十个", "统一20个"),
        ("二十一样", "20一样"),
    ],
    "digits": [
        ("电话幺三八零零幺三八零零零", "电话13800138000"),
        ("拨打一一零", "拨打110"),
        ("三零一房间", "301房间"),
        ("幺二号楼", "12号楼"),
        ("版本三点二点一", "版本3.2.1"),
        ("五G网络", "5G网络"),
    ],
}

AS_SPOKEN = [
    "你好。",
    # Single digits in running text, and words.
    *("有三个人", "第三名", "一天", "五月", "三点", "零", "负一楼", "两个半小时", "第一"),
    *("一些", "等一下", "统一", "万一", "一共", "一会儿", "有一点", "一点点", "快一点三个人"),
    *("十分高兴", "十字路口", "有三点十分重要", "二维码", "四川", "千万不要", "百度", "礼拜五"),
    *("三块五花肉", "一元二次方程", "双十一", "最后一公里", "十一黄金周", "正月十五", "大年三十"),
    *("九一八", "六一儿童节", "一千零一夜", "七十二变", "十万火急"),
    # Estimates.
    *("三四个人", "三五个", "几十个", "几十万人", "数十个", "十几个", "二十几个", "七八年"),
    *("百分之五六", "百分之几十", "十七八岁", "二三十人", "百八十个", "一百七八"),
    # Idioms, and what is no number.
    *("三心二意", "一心一意", "十全十美", "七上八下", "一五一十", "五花八门", "十有八九"),
    *(
        "三七二十一",
        "九九八十一",
        "七七八八",
        "四舍五入",
        "三六九等",
        "第十名",
        "四万万同胞",
        "一点一点",
        "两点一线",
        "万分之一",
    ),
]

ENGLISH = {
    "number": [
        ("twenty five people", "25 people"),
        ("Twenty-five people", "25 people"),
        ("ten", "10"),
        ("one hundred and twenty three", "123"),
        ("five hundred twenty three thousand four hundred and six", "523406"),
        ("two million", "2 million"),
        ("one point five million", "1.5 million"),
        ("three point one four", "3.14"),
        ("zero point oh five", "0.05"),
        ("call five five five one two three four", "call 5551234"),
        ("oh two oh seven", "0207"),
        ("the twenty first century", "the 21st century"),
        ("the one hundred and eleventh", "the 111th"),
    ],
    "money": [
        ("It costs twenty three dollars.", "It costs $23."),
        ("five dollars and twenty cents", "$5.20"),
        ("one dollar", "$1"),
        ("one million dollars", "$1 million"),
        ("twelve euros", "€12"),
        ("a twenty dollar bill", "a 20 dollar bill"),
        ("fifty percent, or five per cent", "50%, or 5%"),
    ],
    "date": [
        ("november twentieth twenty twenty six", "november 20 2026"),
        ("November Twentieth, Twenty Twenty Six.", "November 20, 2026."),
        ("the twenty second of May", "the 22nd of May"),
        ("on may third", "on may 3"),
        ("in nineteen ninety eight", "in 1998"),
        ("nineteen oh five", "1905"),
        ("two thousand and eight", "2008"),
        ("the nineteen eighties", "the 1980s"),
    ],
    "time": [
        ("three thirty p m", "3:30 p.m."),
        ("at three PM.", "at 3 PM."),
        ("ten oh five a.m. sharp", "10:05 a.m. sharp"),
        ("ten o'clock", "10 o'clock"),
    ],
}

ENGLISH_AS_SPOKEN = [
    *(
        "hello world",
        "one of them",
        "no one",
        "wait a second",
        "the first",
        "two dogs",
        "one third",
    ),
    *(
        "seven eleven",
        "three thirty",
        "twenty four seven",
        "half past three",
        "may i",
        "five dollar",
    ),
    *(
        "a twenty second clip",
        "one tenth",
        "it may first be",
        "hundreds",
        "someone",
        "thirteen p m",
    ),
    *("seven point", "january one", "five kilograms", "the twenties", "ten-year-old", "thousand"),
]


def cases(table: dict[str, list[tuple[str, str]]]) -> list[tuple[str, str]]:
    return [case for group in table.values() for case in group]


@pytest.mark.parametrize(("spoken", "written"), cases(CHINESE))
def test_chinese(spoken: str, written: str) -> None:
    assert inverse_normalize(spoken, "zh-CN") == written
    assert inverse_normalize(written, "zh-CN") == written


@pytest.mark.parametrize("text", AS_SPOKEN)
def test_chinese_that_stays(text: str) -> None:
    assert inverse_normalize(text, "zh-CN") == text


@pytest.mark.parametrize(("spoken", "written"), cases(ENGLISH))
def test_english(spoken: str, written: str) -> None:
    assert inverse_normalize(spoken, "en-US") == written
    assert inverse_normalize(written, "en-US") == written


@pytest.mark.parametrize("text", ENGLISH_AS_SPOKEN)
def test_english_that_stays(text: str) -> None:
    assert inverse_normalize(text, "en-US") == text


@pytest.mark.parametrize(
    ("language", "written"),
    [
        (None, "3.14, 25 people"),
        ("auto", "3.14, 25 people"),
        ("zh-CN", "3.14, 25 people"),
        ("yue", "3.14, 25 people"),
        ("en_GB", "三点一四, 25 people"),
        ("ja-JP", "三点一四, twenty five people"),
        ("de", "三点一四, twenty five people"),
    ],
)
def test_the_language_of_the_speech(language: str | None, written: str) -> None:
    assert inverse_normalize("三点一四, twenty five people", language) == written


def test_japanese_is_left_alone_when_nobody_says_that_it_is() -> None:
    assert inverse_normalize("三十人です") == "三十人です"


@pytest.mark.parametrize("text", ["", "你好。", "在 2026年", "Hello, Dr. Smith!", "the phone bone"])
def test_most_sentences_need_nothing(text: str) -> None:
    assert not inverse_zh.needs(text)
    assert not inverse_en.needs(text)


@settings(max_examples=150, deadline=None)
@given(number=st.integers(1, 99_999_999))
def test_chinese_numerals_are_what_the_other_direction_says(number: int) -> None:
    numeral = NORMALIZER.normalize(f"共{number}元", "zh-CN").removeprefix("共").removesuffix("元")
    assert value(numeral) == number


@settings(max_examples=100, deadline=None)
@given(number=st.integers(10, 999) | st.integers(10_000, 999_999))
def test_english_numbers_are_read_back(number: int) -> None:
    """Without those of four digits, which it reads as years (1001 is "ten zero one")."""
    spoken = NORMALIZER.normalize(f"{number} people", "en-US")
    assert inverse_normalize(spoken, "en-US") == f"{number} people"


PIECES = st.sampled_from(
    [
        *NUMERALS,
        *"点點半分秒刻年月日号比块元毛角之负第几数个到度多周星期下午 ，。abG35.-％",
        *(
            f" {word} "
            for group in ("one ten twenty hundred and point oh first tenth", "thousand")
            for word in group.split()
        ),
        *(" percent", " dollars", " cents", " p m", "may ", " million", "nineteen ", "eighties"),
    ]
)


@settings(max_examples=600, deadline=None)
@given(text=st.one_of(st.text(max_size=30), st.lists(PIECES, max_size=12).map("".join)))
def test_any_text_gives_a_text_that_stays(text: str) -> None:
    written = inverse_normalize(text)
    assert isinstance(written, str)
    assert bool(written.strip()) == bool(text.strip())
    assert inverse_normalize(written) == written


@pytest.mark.parametrize(
    "piece",
    [
        "一",
        "十",
        "一百",
        "二点",
        "三点五比",
        "三分之",
        "负",
        "一点一",
        "one ",
        "twenty-",
        "one hundred and ",
    ],
)
def test_a_long_text_takes_no_time_out_of_proportion(piece: str) -> None:
    """No pattern may look at the same characters again and again; one that does never ends."""
    assert inverse_normalize(piece * 2000)


def test_the_grammars_of_the_other_direction_are_not_loaded() -> None:
    code = (
        f"import sys; from {inverse.__name__} import inverse_normalize as f;"
        "f('三点一四元, twenty three dollars'); sys.exit('wetext' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
