"""What the test of wallets draws: small values that meet each other often."""

from hypothesis import strategies as st

from tests.support.faulty_journal import Fault

SHARDS = st.sampled_from([0, 1])
CURRENCIES = st.sampled_from([("USD", 2), ("JPY", 0), ("ETH", 18)])
KEYS = st.sampled_from([None, None, None, "k1", "k2", "k3"])
REFERENCES = st.sampled_from([None, None, "r1", "r2", "r3"])
FAULTS = st.lists(st.sampled_from([None, None, None, *Fault]), max_size=2)
LARGEST = 10**38 - 1
AMOUNTS = st.one_of(
    st.sampled_from(["1", "1", "2", "3", "5", "0.5", "0.01", "0.001", "10"]),
    st.sampled_from([str(LARGEST), str(LARGEST // 100), str(LARGEST // 2)]),
    st.sampled_from(["0.000000000000000001", "99999999999999999999.999999999999999999"]),
)
VALID_AMOUNTS = st.sampled_from(["1", "2", "3", "7"])
STATUSES = st.sampled_from(["pending", "completed"])
TYPES = st.sampled_from(["debit", "debit", "credit"])
CONTROLS = ["update", "freeze", "unfreeze", "unfreeze", "close"]
PATCHES = st.dictionaries(st.sampled_from("ab"), st.sampled_from([None, "1", "2"]))
ENDS = st.sampled_from(["completed", "failed"])
EXPIRES = st.sampled_from([None, 1, 1, 2, 5, 40_000_000])
PARTS = st.sampled_from([None, None, "1", "2", "5", "0.01"])
THEN = st.sampled_from(["fail", "complete"])
