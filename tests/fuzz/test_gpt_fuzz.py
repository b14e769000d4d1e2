"""A bounded run of the fuzz target, from whole tables on."""

import random
import zlib

from blockwright.table.device import open_disk
from blockwright.table.gpt import layout, names
from blockwright.table.gpt.plan import Request, plan, segments
from tests.fuzz.gpt_target import fuzz_one

ROUNDS = 1500
KINDS = [names.TYPES["esp"], names.TYPES["linux-generic"]]


def seeds():
    for sector in (512, 4096):
        requests = [Request(kind, 16384, f"p{number}") for number, kind in enumerate(KINDS)]
        table = plan(requests, seed=b"", sector_size=sector, alignment=4096, entry_count=32)
        yield sector, bytearray(open_disk(table.size, segments(table), []).read(0, table.size))


def test_damaged_tables_raise_format_errors_only():
    for sector, clean in seeds():
        metadata = [*range(446, 512), *range(sector, sector + 92), *range(2 * sector, 2 * sector + 300)]
        metadata += [len(clean) - 1 - byte for byte in range(sector + 400)]
        for number in range(ROUNDS):
            source = random.Random(f"gpt.{sector}.{number}")
            data = bytearray(clean)
            for _ in range(source.choice([1, 1, 2, 5])):
                data[source.choice(metadata)] = source.choice([0, 255, 1, 128, source.randrange(256)])
            for start in (sector, len(data) - sector) if source.random() < 0.7 else ():
                header = layout.Header.parse(data, start)
                where = header.partition_entry_lba * sector
                length = header.number_of_partition_entries * header.size_of_partition_entry
                if length < 1 << 20:
                    header.partition_entry_array_crc32 = zlib.crc32(data[where : where + length])
                data[start : start + 92] = header.seal()
            cut = len(data) if source.random() < 0.9 else source.randrange(len(data))
            try:
                fuzz_one(bytes(data[:cut]))
            except Exception as error:
                raise AssertionError(f"replay: sector {sector}, number {number}") from error


def test_noise_raises_format_errors_only():
    for number in range(200):
        source = random.Random(number)
        data = bytearray(source.randbytes(source.randrange(20000)))
        if len(data) > 600:
            data[512:520] = layout.SIGNATURE
        fuzz_one(bytes(data))
