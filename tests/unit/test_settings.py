from pathlib import Path

import pytest

from gateway.settings import IN_FILES, Settings, SettingsError, load, rows
from gateway.values import fields

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"


def test_settings_have_defaults() -> None:
    assert load({}) == Settings()


def test_settings_are_read_from_the_environment() -> None:
    settings = load({"PORT": "8080", "CONFIDENCE": "0.4", "MODEL": "helmets", "UNRELATED": "1"})
    assert (settings.port, settings.confidence, settings.model) == (8080, 0.4, "helmets")


def test_an_empty_value_counts_as_not_given() -> None:
    assert load({"MODEL": ""}).model == "yolov5n"


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("PORT", "http", "a whole number from 1 to 65535"),
        ("PORT", "70000", "a whole number from 1 to 65535"),
        ("CONFIDENCE", "25", "a number from 0 to 1"),
        ("MAX_IMAGE_BYTES", "10MB", "a whole number of at least 1"),
        ("VISION_WAIT", "0", "a number above 0 to 60"),
        ("FETCH_TIMEOUT", "-1", "a number above 0"),
        ("FETCH_URLS", "maybe", "true or false"),
        ("LOG_LEVEL", "loud", "debug or error or info or warning"),
        ("LOG_FORMAT", "xml", "json or text"),
        ("OUTBOUND_PORTS", "443;8443", "ports with commas between, such as 443,8443"),
        ("WEBHOOK_DELAYS", "5s", "seconds with commas between, such as 5,30,120"),
        ("REDIS_PREFIX", "a:b", "up to 64 letters, digits, _, - or ., a different one for each stack"),
        ("REDIS_PREFIX", "a*", "up to 64 letters, digits, _, - or ., a different one for each stack"),
        ("REDIS_PREFIX", "a\n", "up to 64 letters, digits, _, - or ., a different one for each stack"),
    ],
)
def test_a_bad_value_is_told_with_what_is_allowed(name: str, value: str, allowed: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load({"MODEL": "helmets", name: value})
    assert str(caught.value) == f"{name}={value}: give {allowed}"


def test_what_a_pattern_allows_is_told_in_words() -> None:
    for name in fields(Settings):
        try:
            load({name.upper(): "?"})
        except SettingsError as error:
            assert not str(error).endswith("give text")


def test_every_setting_is_documented() -> None:
    text = PAGE.read_text()
    for name, default, description in rows():
        assert f"| `{name}` | `{default}` | {description} |" in text


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis:6379", "REDIS_URL=redis:6379: give redis://host:6379/0"),
        ("127.0.0.1:6379", "REDIS_URL=127.0.0.1:6379: give redis://"),
        ("http://redis:6379", "REDIS_URL=http://redis:6379: give redis://"),
        ("redis://redis:port/0", "REDIS_URL=redis://redis:port/0: give redis://"),
        ("redis://redis/0?colour=red", "unexpected keyword argument 'colour'"),
        ("redis://redis/abc", "the database is a number from 0"),
        ("redis://redis/-1", "the database is a number from 0"),
        ("redis://redis/?db=-1", "the database is a number from 0"),
        ("redis://redis/0?protocol=9", "REDIS_URL=redis://redis/0.protocol=9: give redis://"),
        ("redis://redis/0?encoding=nope", "encoding is no option of a URL"),
        ("redis://redis/0?retry_on_error=x", "retry_on_error is no option of a URL"),
        ("rediss://redis/0?ssl_cert_reqs=foo", "give redis://host:6379/0, rediss://"),
        ("rediss://redis/0?ssl_ca_certs=/none/ca.pem", "ssl_ca_certs: .*No such file or directory: '/none/ca.pem'"),
        ("redis+sentinel://a:26379", "give redis.sentinel://"),
        ("redis+sentinel://a,,b/queue", "give redis.sentinel://"),
        ("redis+sentinel://a:port/queue", "the Sentinel a:port"),
        ("redis+sentinel://a/queue/x", "the database is a number from 0"),
        ("redis+sentinel://a/queue/0?colour=red&sentinel_password=hush", "unexpected keyword argument 'colour'"),
        ("redis://user:hush@redis/0?colour=red", r"REDIS_URL=\.\.\.@redis/0\?colour=red: give"),
    ],
)
def test_a_redis_url_that_cannot_be_used_is_one_line(url: str, shown: str) -> None:
    with pytest.raises(SettingsError, match=shown) as told:
        load({"REDIS_URL": url})
    assert "\n" not in str(told.value) and "hush" not in str(told.value)


def test_a_gateway_has_time_to_end_after_it_has_drained() -> None:
    with pytest.raises(SettingsError, match=r"DRAIN_SECONDS=8\.5: .* STOP_TIMEOUT=9; give at most 8, or a longer"):
        load({"DRAIN_SECONDS": "8.5"})
    assert load({"DRAIN_SECONDS": "8.5", "STOP_TIMEOUT": "9.5"}).drain_seconds == 8.5


def test_proxies_are_addresses() -> None:
    with pytest.raises(SettingsError, match="TRUSTED_PROXIES=nginx: give addresses or networks"):
        load({"TRUSTED_PROXIES": "nginx"})
    for each in ("*", "127.0.0.1", "10.0.0.5, 172.16.0.0/12", "::1"):
        assert load({"TRUSTED_PROXIES": each}).trusted_proxies == each


@pytest.mark.parametrize(
    "url",
    [
        "redis://:x@redis:6379/1",
        "rediss://redis:6380",
        "unix:///run/redis.sock?db=2",
        "redis://[::1]:6379/0",
        "redis+sentinel://:x@a:26379,[::1]/queue/1?sentinel_password=y",
        "rediss+sentinel://a/queue",
    ],
)
def test_redis_urls_that_can_be_used(url: str) -> None:
    assert load({"REDIS_URL": url}).redis_url == url


def test_triton_speaks_grpc_not_http() -> None:
    with pytest.raises(SettingsError, match="TRITON_URL=http://triton:8001: give host:port"):
        load({"TRITON_URL": "http://triton:8001"})


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "triton:8000", "[::1]:8000"])
def test_tritons_http_endpoint_may_be_given(url: str) -> None:
    assert load({"TRITON_HTTP_URL": url}).triton_http_url == url
    assert load({"TRITON_HTTP_URL": ""}).triton_http_url is None


@pytest.mark.parametrize(
    "url", ["http://triton:8000", "triton", "a:8000,b:8000", "dns:///tritons:8000", "a:65536", "a:1/x"]
)
def test_an_http_endpoint_without_meaning_is_refused(url: str) -> None:
    with pytest.raises(
        SettingsError, match=r"TRITON_HTTP_URL=.*: give host:port of its HTTP endpoint, without http://"
    ):
        load({"TRITON_HTTP_URL": url})


TRITONS = ("triton:8001", "a:8001,b:8001", "dns:///tritons:8001", "[::1]:8001,dns:///tritons.default.svc:8001")


@pytest.mark.parametrize("url", TRITONS)
def test_tritons_may_be_several(url: str) -> None:
    assert load({"TRITON_URL": url}).triton_url == url


@pytest.mark.parametrize(
    "url",
    ["a:8001,", ",a:8001", "a:8001, b:8001", "dns:///tritons", "dns:///a:65536", "dns://server/a:1", "a,http://b"],
)
def test_several_tritons_without_meaning_are_refused(url: str) -> None:
    with pytest.raises(
        SettingsError, match=r"TRITON_URL=.*: give host:port .*, several with commas between, or dns:///"
    ):
        load({"TRITON_URL": url})


@pytest.mark.parametrize("name", IN_FILES)
def test_a_secret_may_be_in_a_file(name: str, tmp_path: Path) -> None:
    secret = {"REDIS_URL": "redis://:hush@redis/0", "WEBHOOK_SECRET": "whsec_" + "A" * 32}.get(name, "k" * 32)
    path = tmp_path / "secret"
    path.write_text(f"{secret}\n")
    assert getattr(load({f"{name}_FILE": str(path)}), name.lower()) == secret
    with pytest.raises(SettingsError, match=f"{name} and {name}_FILE are both set"):
        load({f"{name}_FILE": str(path), name: secret})
    path.write_text("\n")
    with pytest.raises(SettingsError, match="the file is empty"):
        load({f"{name}_FILE": str(path)})
    with pytest.raises(SettingsError, match="No such file"):
        load({f"{name}_FILE": str(tmp_path / "none")})


def test_the_page_names_the_files() -> None:
    text = PAGE.read_text()
    assert all(f"`{name}_FILE`" in text for name in IN_FILES)
