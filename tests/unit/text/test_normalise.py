import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.text import normalise
from app.text.normalise import Normalizer

NORMALIZER = Normalizer()


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("今天是2026-11-20。", "今天是二零二六年十一月二十日。"),
        ("２０２６年11月20日", "二零二六年十一月二十日"),
        ("价格是3.14元", "价格是三点一四元"),
        ("电话13800138000", "电话幺三八零零幺三八零零零"),
        ("涨了50%", "涨了百分之五十"),
        ("80%-90%的人", "百分之八十到百分之九十的人"),
        ("下午3:30开会", "下午三点三十分开会"),
        ("今天25℃", "今天二十五摄氏度"),
        ("1/2的人", "二分之一的人"),
        ("1,234个", "一千二百三十四个"),
        ("¥100和$5", "一百元和五美元"),
        ("3-5天", "三到五天"),
        ("A-101房间", "A 一零一房间"),
        ("GPT-4o很好", "GPT 四o很好"),
        ("COVID-19疫苗", "COVID 十九疫苗"),
        ("v1.2.3版", "v一点二点三版"),
        ("地址192.168.1.1", "地址一九二点一六八点一点一"),
        ("http://a-1.com/2.3.4和5个", "http://a-1.com/2.3.4和五个"),
        ("见http://a-1.com/2.3.4 和5个", "见http://a-1.com/2.3.4 和五个"),
        ("a1@b2.com有2封", "a1@b2.com有两封"),
        ('他说"3个"。', '他说"三个"。'),
        ("路径C:\\1", "路径C:\\一"),
    ],
)
def test_chinese(text: str, spoken: str) -> None:
    assert NORMALIZER.normalize(text, "zh-CN") == spoken


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("On 2026-11-20.", "On the twentieth of november twenty twenty six."),
        ("It is 3.14", "It is three point one four"),
        ("It costs $23.50", "It costs twenty three point five dollars"),
        ("call 13800138000", "call one three eight zero zero one three eight zero zero zero"),
        ("call 555-1234", "call five five five one two three four"),
        ("50% of it", "fifty percent of it"),
        (" at 3:30 PM ", " at three thirty PM "),
        ("room A-101", "room A one zero one"),
        ("1,000,000 people", "one million people"),
        ("1,000 people", "one thousand people"),
        (
            "$1,234.50",
            "one thousand two hundred and thirty four point five dollars",
        ),
        ("a thousand and 5", "a thousand and five"),
        ("version 1.2.3", "version one point two point three"),
        ("see https://a.b/1?c=2 for 5", "see https://a.b/1?c=2 for five"),
    ],
)
def test_english(text: str, spoken: str) -> None:
    assert NORMALIZER.normalize(text, "en-US") == spoken


@pytest.mark.parametrize(
    ("language", "spoken"),
    [
        ("zh", "三点一四"),
        ("zh-HK", "三点一四"),
        ("yue", "三点一四"),
        ("cmn-CN", "三点一四"),
        ("en_GB", "three point one four"),
        ("ja-JP", "3.14"),
        ("", "3.14"),
    ],
)
def test_language_of_the_voice(language: str, spoken: str) -> None:
    assert NORMALIZER.normalize("3.14", language) == spoken


def test_chinese_text_with_an_english_voice_is_read_as_chinese() -> None:
    assert NORMALIZER.normalize("有3个", "en-US") == "有三个"


@pytest.mark.parametrize("text", ["", "你好。", "Hello, Dr. Smith!", "一百二十"])
def test_most_sentences_need_nothing(text: str) -> None:
    assert not NORMALIZER.needs(text)
    assert NORMALIZER.normalize(text, "zh-CN") == text


@pytest.mark.parametrize("text", ["3", "３", "五%", "25℃", "¥", "€"])
def test_what_needs_it(text: str) -> None:
    assert NORMALIZER.needs(text)


def test_a_failure_of_the_grammar_leaves_the_sentence_as_it_is() -> None:
    """wetext asserts on this one; an engine can still read it."""
    text = "^4¥7点"
    normalizer = Normalizer()
    assert normalizer._plain(text, "en") == text


def test_threads_get_their_own_results() -> None:
    normalizer = Normalizer()
    texts = [f"第{n}个" for n in range(40)] * 3
    expected = [NORMALIZER.normalize(text, "zh-CN") for text in texts]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda text: normalizer.normalize(text, "zh-CN"), texts))
    assert found == expected
    assert len(set(found)) == 40


def test_a_repeated_sentence_comes_from_the_cache() -> None:
    normalizer = Normalizer()
    for _ in range(3):
        normalizer.normalize("有3个", "zh-CN")
    assert normalizer._cached.cache_info().hits == 2


@settings(max_examples=60, deadline=None)
@given(
    text=st.text(
        st.sampled_from(list('0123456789.,:%-/$¥€"\\{}()@ abcA年月日点你好\n℃')), max_size=30
    ),
    language=st.sampled_from(["zh-CN", "en-US"]),
)
def test_any_text_gives_a_text(text: str, language: str) -> None:
    spoken = NORMALIZER.normalize(text, language)
    assert isinstance(spoken, str)
    assert bool(spoken.strip()) == bool(text.strip())


def test_the_grammars_are_not_imported_before_they_are_used() -> None:
    code = (
        f"import sys; from {normalise.__name__} import Normalizer;"
        "Normalizer().normalize('你好', 'zh-CN'); sys.exit('wetext' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
