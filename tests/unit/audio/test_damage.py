import pytest

from app.audio.damage import MAX_BAD, Damage
from app.core.errors import BadAudio


@pytest.mark.parametrize("good", [0, 9, 100, 1_000])
def test_limit_grows_with_what_is_good(good: int) -> None:
    damage = Damage()
    for _ in range(good):
        damage.count_good()
    allowed = MAX_BAD + good // 10
    for _ in range(allowed):
        damage.count_bad()
    with pytest.raises(BadAudio, match="damaged"):
        damage.count_bad()
    assert (damage.good, damage.bad) == (good, allowed + 1)
