import pytest

from blockwright.address import Address, parse_address
from blockwright.errors import UsageError
from blockwright.store.address import ObjectAddress, is_store_url, parse_object

pytestmark = pytest.mark.unprivileged


@pytest.mark.parametrize(
    ("url", "bucket", "key"),
    [
        ("s3://bucket/a/b.img", "s3://bucket", "a/b.img"),
        ("s3://bucket/a%20b", "s3://bucket", "a%20b"),
        ("s3://bucket/a?b", "s3://bucket", "a?b"),
        ("gs://bucket/disk", "gs://bucket", "disk"),
        ("az://container/disk", "az://container", "disk"),
        ("http://127.0.0.1:9000/x/y.img", "http://127.0.0.1:9000", "x/y.img"),
        ("https://[::1]:8443/a%20b", "https://[::1]:8443", "a b"),
    ],
)
def test_urls_name_a_bucket_and_a_key(url, bucket, key):
    assert is_store_url(url)
    assert parse_object(url) == ObjectAddress(bucket, key)
    assert parse_object(url).readable_only == url.startswith("http")


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("s3://bucket", "key"),
        ("s3://bucket/", "key"),
        ("s3:///key", "bucket or host"),
        ("s3://bucket/a//b", "empty or dotted"),
        ("s3://bucket/../b", "empty or dotted"),
        ("http://host/%2e%2e/b", "empty or dotted"),
        ("https://host/a?token=1", "without a query"),
        ("https://me:secret@host/a", "no credentials"),
        ("http://host:port/a", "URL of an object"),
        ("s3://bucket/" + "k" * 1025, "1024 bytes"),
    ],
)
def test_what_names_no_object_is_refused(url, reason):
    with pytest.raises(UsageError, match=reason) as error:
        parse_object(url)
    assert "secret" not in str(error.value)


def test_urls_of_stores_are_addresses_with_parts():
    assert parse_address("s3://bucket/disk") == Address("store", "s3://bucket/disk")
    assert parse_address("s3://bucket/disk#2") == Address("store", "s3://bucket/disk", 2)
    assert str(parse_address("gs://bucket/disk#start=1M,size=4K")) == "gs://bucket/disk#start=1048576,size=4096"
    with pytest.raises(UsageError, match="ftp"):
        parse_address("ftp://host/disk")
