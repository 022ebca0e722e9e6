import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftlab.backbones.huggingface import HuggingFace
from ftlab.data.audio_classification import AudioClassification
from ftlab.data.bucketing import STRETCH, Buckets
from ftlab.data.causal_lm import CausalLM
from ftlab.data.sampling import Balanced, Natural, TrainSampler, share_of_batch
from ftlab.data.seq2seq import Seq2Seq
from ftlab.data.speech_recognition import SpeechRecognition
from ftlab.data.text import TextClassification
from ftlab.data.text_augment import TextAugment

RAGGED = st.lists(st.integers(1, 60), min_size=1, max_size=150)
SIZES = st.sampled_from([1, 2, 3, 6, 12])
SEEDS = st.integers(0, 9)


def sampler(lengths, size, seed=0, epoch=0, rank=0, world=1, sampling=None, bucketed=True):
    strata = [length % 2 for length in lengths]
    buckets = Buckets(lengths, size) if bucketed else None
    made = TrainSampler(sampling or Natural(), strata, seed, rank, world, buckets=buckets)
    made.set_epoch(epoch)
    return made


def batches(positions, size):
    positions = list(positions)
    return [positions[i:i + size] for i in range(0, len(positions), size)]


def padded(lengths, positions, size):
    """Tokens that the network reads, padding included."""
    return sum(len(batch) * max(lengths[i] for i in batch) for batch in batches(positions, size))


@given(RAGGED, SIZES, SEEDS, SEEDS)
def test_an_epoch__has_its_examples_in_as_many_batches(lengths, size, seed, epoch):
    ours = list(sampler(lengths, size, seed, epoch))
    drawn = list(sampler(lengths, size, seed, epoch, bucketed=False))
    assert sorted(ours) == list(range(len(lengths)))
    partial = len(lengths) % size
    assert ours[len(ours) - partial:] == drawn[len(drawn) - partial:]
    assert ours == list(sampler(lengths, size, seed, epoch))


@given(RAGGED, SIZES, SEEDS)
def test_padding__is_never_more(lengths, size, seed):
    ours, drawn = (padded(lengths, sampler(lengths, size, seed, bucketed=bucketed), size)
                   for bucketed in (True, False))
    assert sum(lengths) <= ours <= drawn


@given(st.integers(16, 150), st.integers(2, 6), SEEDS)
def test_padding__is_less_where_lengths_differ(n, size, seed):
    lengths = (1 + np.random.default_rng(n).permutation(n)).tolist()
    ours, drawn = (sum(padded(lengths, sampler(lengths, size, seed, epoch, bucketed=bucketed), size)
                       for epoch in range(10)) for bucketed in (True, False))
    few = -(-n // size) < 8
    assert ours == drawn if few else ours < drawn


@given(st.integers(40, 150), SEEDS, SEEDS)
def test_order__is_new_for_each_epoch_and_seed(n, seed, epoch):
    lengths = [1 + i % 7 for i in range(n)]
    first = list(sampler(lengths, 3, seed, epoch))
    assert list(sampler(lengths, 3, seed, epoch + 1)) != first
    assert list(sampler(lengths, 3, seed + 1, epoch)) != first


@given(RAGGED, st.sampled_from([2, 3, 4]), SEEDS, st.sampled_from([Natural(), Balanced()]))
def test_ranks__together_have_the_batch_of_one_device(lengths, world, seed, sampling):
    share = share_of_batch(12, world)
    alone = batches(sampler(lengths, 12, seed, sampling=sampling), 12)
    ranks = [batches(sampler(lengths, 12, seed, 0, rank, world, sampling), share)
             for rank in range(world)]
    together = [sorted(i for part in parts for i in part) for parts in zip(*ranks, strict=True)]
    assert len(together) == len(alone)
    assert together[:-1] == [sorted(batch) for batch in alone[:-1]]
    more = -len(lengths) % world  # ranks take equally many
    first = [i for batch in alone for i in batch][:more]
    assert together[-1] == sorted(alone[-1] + first) or len(lengths) < world


@given(RAGGED, SIZES, SEEDS)
def test_drawn_twice__stays_twice(lengths, size, seed):
    """Strata are odd and even lengths, so a rare kind is repeated."""
    ours, drawn = (list(sampler(lengths, size, seed, sampling=Balanced(), bucketed=bucketed))
                   for bucketed in (True, False))
    assert sorted(ours) == sorted(drawn)


@pytest.mark.parametrize("n", [1, 7, 27, 28])
def test_small_sets__stay_as_they_are(n):
    lengths = list(range(1, n + 1))
    assert list(sampler(lengths, 4)) == list(sampler(lengths, 4, bucketed=False))


@pytest.mark.parametrize("whole", [8, 30, 199, 201, 1000])
def test_stretches__are_at_most_fifty_batches_and_at_least_a_quarter(whole):
    """Examples move within their stretch alone, and batches of all lengths come in any order."""
    size = 4
    lengths = np.random.default_rng(1).integers(1, 10**6, whole * size)
    drawn = Natural().order([None] * len(lengths), 3, 5)
    arranged = Buckets(lengths, size).arrange(drawn, 3, 5)
    parts = np.array_split(np.arange(whole), max(4, -(-whole // STRETCH)))
    assert max(map(len, parts)) <= min(50, -(-whole // 4))
    for part in parts:
        here = slice(part[0] * size, (part[-1] + 1) * size)
        assert sorted(arranged[here]) == sorted(drawn[here])
        by_length = lengths[arranged[here]].reshape(-1, size)
        mixed = by_length[by_length[:, 0].argsort()].ravel()
        assert (np.diff(mixed) >= 0).all()
        assert len(part) < 7 or (np.diff(by_length[:, 0]) < 0).any()


@pytest.mark.parametrize("other", [(3, 6), (4, 5)])
def test_batches__are_shuffled_anew_by_seed_and_epoch(other):
    lengths = np.random.default_rng(1).integers(1, 10**6, 800)
    drawn, buckets = np.arange(800), Buckets(lengths, 4)
    first, second = buckets.arrange(drawn, 3, 5), buckets.arrange(drawn, *other)
    assert {*map(tuple, batches(first, 4))} == {*map(tuple, batches(second, 4))}
    assert first.tolist() != second.tolist()


def test_examples_of_one_length__share_a_batch_at_random():
    lengths = [5] * 64
    first, second = (batches(sampler(lengths, 8, epoch=epoch), 8) for epoch in (0, 1))
    assert len({frozenset(batch) for batch in first + second}) == 16


def test_equal_lengths__stay_as_drawn():
    """Which is all that mixes them."""
    lengths = [1, 2] * 40
    place = {i: at for at, i in enumerate(sampler(lengths, 10, seed=4, bucketed=False))}
    for batch in batches(sampler(lengths, 10, seed=4), 10):
        for length in (1, 2):
            kept = [place[i] for i in batch if lengths[i] == length]
            assert kept == sorted(kept)


# Through the data modules


def texts(tmp_path, n=300):
    """Text i has 1 + i % 9 words."""
    (tmp_path / "all.tsv").write_text("".join(
        f"{' '.join(['film'] * (1 + i % 9))}\t{'ab'[i % 2]}\n" for i in range(n)))
    return str(tmp_path / "all.tsv")


def places(data):
    """Tokens that an epoch's batches have, padding included."""
    return sum(batch["inputs"]["input_ids"].numel() for batch in data.train_dataloader())


LABELS = {"text": 0, "label": 1, "max_length": 20}
PAIRS = {"prompt": "{0}", "response": "{1}", "max_length": 20}


@pytest.mark.parametrize(("made", "named"), [
    (TextClassification, LABELS),
    (CausalLM, PAIRS),
    (Seq2Seq, {"source": 0, "target": 1, "max_source_length": 20, "max_target_length": 20}),
], ids=lambda each: getattr(each, "__name__", ""))
def test_texts__are_bucketed_unless_told_otherwise(made, named, tmp_path, backbone):
    network = backbone("t5" if made is Seq2Seq else "gpt2" if made is CausalLM else "bert")
    found = {}
    for bucketing in (True, False):
        data = made(texts(tmp_path), batch_size=8, bucketing=bucketing, **named)
        data.connect(network, seed=0)
        found[bucketing] = places(data)
    assert found[True] < 0.85 * found[False]
    default = made(texts(tmp_path), batch_size=8, **named)
    default.connect(network, seed=0)
    assert places(default) == found[True]


@pytest.mark.parametrize("made", [
    lambda spoken, **more: SpeechRecognition(str(spoken / "table.csv"), **more),
    lambda spoken, **more: AudioClassification(str(spoken / "words"), label="label",
                                               pattern="{label}_{speaker}_{index}", **more),
])
@pytest.mark.parametrize("network", ["tiny_wav2vec2", "tiny_whisper"])
def test_recordings__are_bucketed_where_the_network_hears_their_length(
        made, network, spoken, request):
    """Whisper's are all padded to one length."""
    backbone = HuggingFace(str(request.getfixturevalue(network)))
    orders, heard = [], []
    for bucketing in (True, False):
        data = made(spoken, batch_size=4, bucketing=bucketing)
        data.connect(backbone, seed=0)
        found = list(data.train_dataloader())
        orders.append([batch["index"].tolist() for batch in found])
        heard.append(sum(next(iter(batch["inputs"].values())).numel() for batch in found))
    assert len(orders[0]) == len(orders[1]) >= 8
    if network == "tiny_whisper":
        assert orders[0] == orders[1] and heard[0] == heard[1]
    else:
        assert heard[0] < heard[1]


def test_packed_rows__are_not_bucketed(tmp_path, backbone):
    orders = []
    for settings in ({"bucketing": True}, {"bucketing": False}):
        data = CausalLM(texts(tmp_path), batch_size=8, packing=True, **settings, **PAIRS)
        data.connect(backbone("gpt2"), seed=0)
        orders.append([batch["index"].tolist() for batch in data.train_dataloader()])
    assert orders[0] == orders[1]


def test_augmented_texts__keep_their_batches(tmp_path, backbone):
    """They are bucketed by what they were; words that are dropped change no batch."""
    orders = []
    for augment in (None, TextAugment(dropout=0.5)):
        data = TextClassification(texts(tmp_path), batch_size=8, augment=augment, **LABELS)
        data.connect(backbone("bert"), seed=0)
        orders.append([batch["index"].tolist() for batch in data.train_dataloader()])
    assert orders[0] == orders[1]
