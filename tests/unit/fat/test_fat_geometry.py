import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blockwright.errors import NoSpace, UsageError
from blockwright.fs.fat import layout
from blockwright.fs.fat.geometry import (
    MAX_CLUSTERS_12,
    MAX_CLUSTERS_16,
    MIN_CLUSTERS_16,
    MIN_CLUSTERS_32,
    Need,
    choose,
)
from blockwright.units import GiB, KiB, MiB, TiB


def pick(bodies=(), root_bytes=0, **options):
    arguments = {"size": None, "bits": None, "sector_size": 512, "cluster_size": None, "free": 0.0, **options}
    return choose(Need(root_bytes, list(bodies)), **arguments)


def check_sound(found):
    end = found.data_start + found.clusters * found.cluster_size
    assert end <= found.size < end + found.cluster_size
    assert found.media != 0xF8 or found.data_start % max(found.cluster_size, 4096) == 0
    assert (found.clusters + 2) * found.bits <= found.fat_size * 8
    assert (found.clusters + 2) * found.bits > (found.fat_size - 2 * found.sector_size) * 8
    if found.bits == 12:
        assert 1 <= found.clusters <= MAX_CLUSTERS_12
    elif found.bits == 16:
        assert MIN_CLUSTERS_16 <= found.clusters <= MAX_CLUSTERS_16
    else:
        assert found.clusters >= MIN_CLUSTERS_32
        assert found.reserved_sectors >= 32
        assert found.root_cluster == 2
    assert found.reserved_sectors < 1 << 16
    assert found.total_sectors < 1 << 32


def test_smallest_volume():
    found = pick()
    check_sound(found)
    assert (found.bits, found.cluster_size, found.clusters) == (16, 512, MIN_CLUSTERS_16)


@pytest.mark.parametrize(
    ("size", "bits", "cluster"),
    [
        (64 * KiB, 12, 512),
        (2 * MiB, 12, 512),
        (3 * MiB, 16, 512),
        (20 * MiB, 16, 2048),
        (64 * MiB, 32, 512),
        (260 * MiB, 32, 512),
        (300 * MiB, 32, 4 * KiB),
        (8 * GiB, 32, 4 * KiB),
        (12 * GiB, 32, 8 * KiB),
        (20 * GiB, 32, 16 * KiB),
        (1 * TiB, 32, 32 * KiB),
    ],
)
def test_cluster_sizes_are_the_usual(size, bits, cluster):
    found = pick(size=size)
    check_sound(found)
    assert (found.bits, found.cluster_size, found.size) == (bits, cluster, size)


def test_small_volumes_take_a_smaller_cluster_where_content_needs_it():
    found = pick([1] * 20000, size=20 * MiB)
    assert found.cluster_size == 512


@pytest.mark.parametrize("bits", [16, 32])
def test_automatic_size_is_exact(bits):
    bodies = [100_000] * 700
    found = pick(bodies, bits=bits)
    check_sound(found)
    needed = Need(0, bodies).clusters(bits, found.cluster_size)
    assert found.clusters == max(needed, MIN_CLUSTERS_32 if bits == 32 else 0)
    again = pick(bodies, bits=bits, size=found.size, cluster_size=found.cluster_size)
    assert again.clusters == found.clusters
    if found.clusters == needed:
        with pytest.raises(NoSpace):
            pick(bodies, bits=bits, size=found.size - 512, cluster_size=found.cluster_size)


def test_free_space_is_a_fraction_of_the_finished_volume():
    for free in (0.1, 0.25, 0.5, 0.95):
        found = pick([50 * MiB], free=free)
        used = Need(0, [50 * MiB]).clusters(found.bits, found.cluster_size)
        assert found.clusters - used >= free * found.clusters
        assert found.clusters - 1 - used < free * (found.clusters - 1) + 1


def test_a_large_root_makes_the_fixed_one_larger():
    assert pick(root_bytes=513 * 32, bits=16).root_entries >= 513
    with pytest.raises(UsageError, match="root directory"):
        pick(root_bytes=65536 * 32, bits=16)


def test_no_space_names_both_sizes():
    with pytest.raises(NoSpace, match=rf"needs about [0-9]+ bytes, found a size of {64 * MiB}"):
        pick([65 * MiB], size=64 * MiB)


@pytest.mark.parametrize(
    "options",
    [
        {"size": 1 * MiB, "bits": 16},
        {"size": 10 * MiB, "bits": 32},
        {"size": 8 * GiB, "bits": 16},
        {"size": 3 * TiB},
        {"size": 1 * GiB, "bits": 16, "cluster_size": 512},
    ],
)
def test_sizes_that_no_volume_has_are_usage_errors(options):
    with pytest.raises(UsageError):
        pick(**options)


def test_what_barely_fits_a_smaller_type_is_given_that():
    size = pick(bits=32).size
    bodies = [size - 300 * KiB]
    assert pick(bodies, size=size, cluster_size=None).bits == 16


@settings(max_examples=200)
@given(
    st.lists(st.integers(1, 3 * MiB), max_size=60),
    st.sampled_from([512, 1024, 2048, 4096]),
    st.sampled_from([None, 16, 32]),
    st.none() | st.integers(1, 400 * MiB),
    st.sampled_from([0.0, 0.3]),
)
def test_every_volume_is_sound_and_holds_its_content(bodies, sector_size, bits, size, free):
    try:
        found = pick(bodies, sector_size=sector_size, bits=bits, size=size, free=free, root_bytes=320)
    except (NoSpace, UsageError):
        assert size is not None
        return
    check_sound(found)
    assert size is None or found.size == size // sector_size * sector_size
    assert bits in (None, found.bits)
    assert Need(320, bodies).clusters(found.bits, found.cluster_size) <= found.clusters - int(free * found.clusters)


def test_a_body_takes_whole_clusters_and_an_empty_root_one():
    need = Need(0, [1, 4096, 4097])
    assert need.clusters(16, 4096) == 4
    assert need.clusters(32, 4096) == 5
    assert layout.EDGE == 16


@pytest.mark.parametrize(
    ("size", "media", "cluster", "root_entries", "track", "clusters"),
    [
        (360, 0xFD, 1024, 112, 9, 354),
        (720, 0xF9, 1024, 112, 9, 713),
        (1200, 0xF9, 512, 224, 15, 2371),
        (1440, 0xF0, 512, 224, 18, 2847),
        (2880, 0xF0, 1024, 240, 36, 2863),
    ],
)
def test_the_size_of_a_floppy_is_a_floppy(size, media, cluster, root_entries, track, clusters):
    found = pick(size=size * KiB)
    check_sound(found)
    assert (found.bits, found.media, found.cluster_size, found.root_entries) == (12, media, cluster, root_entries)
    assert (found.sectors_per_track, found.heads, found.clusters) == (track, 2, clusters)
    assert pick(size=size * KiB - 512, bits=12).media == 0xF8
    with pytest.raises(UsageError, match=f"holds {root_entries} entries, and {root_entries + 1} are needed"):
        pick(size=size * KiB, root_bytes=32 * (root_entries + 1))
    assert pick([1] * clusters, size=size * KiB).clusters == clusters
    with pytest.raises(NoSpace, match=f"needs {clusters + 1} clusters"):
        pick([1] * (clusters + 1), size=size * KiB)


def test_fat12_by_request():
    assert pick([1000] * 3, bits=12).clusters == 6
    assert pick([512] * MAX_CLUSTERS_12, bits=12).cluster_size == 512
    assert pick([1024] * MAX_CLUSTERS_12, bits=12).cluster_size == 1024
    with pytest.raises(UsageError, match="more than FAT12"):
        pick([1] * (MAX_CLUSTERS_12 + 1), bits=12)
    with pytest.raises(UsageError, match="cannot be FAT12"):
        pick(size=1 * GiB, bits=12)


@pytest.mark.parametrize("bits", [12, 16])
def test_a_root_that_is_too_full_is_refused_with_both_numbers(bits):
    with pytest.raises(UsageError, match=f"root directory of FAT{bits} holds 65520 entries, and 65521 are needed"):
        pick(root_bytes=65521 * 32, bits=bits)
