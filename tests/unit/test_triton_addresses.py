"""What TRITON_URL stands for."""

import pytest

from gateway.triton.addresses import Addresses, Unresolved, is_several, resolved


@pytest.mark.parametrize(
    ("url", "several"),
    [("triton:8001", False), ("[::1]:8001", False), ("a:8001,b:8001", True), ("dns:///tritons:8001", True)],
)
def test_one_address_is_left_to_grpc(url: str, several: bool) -> None:
    assert is_several(url) is several


def test_a_name_stands_for_all_its_addresses_and_each_is_there_once() -> None:
    found = {"tritons": ["10.0.0.1:8001", "10.0.0.2:8001"]}
    addresses = Addresses("first:8001,dns:///tritons:8001,10.0.0.2:8001", lambda name, port: found[name])
    assert addresses.change
    assert addresses.look() == ["first:8001", "10.0.0.1:8001", "10.0.0.2:8001"]
    found["tritons"] = ["10.0.0.3:8001"]
    assert addresses.look() == ["first:8001", "10.0.0.3:8001", "10.0.0.2:8001"]


def test_a_name_server_that_fails_takes_no_address_away() -> None:
    answers: list[list[str] | Exception] = [["10.0.0.1:8001"], Unresolved("no answer"), ["10.0.0.2:8001"]]

    def resolve(name: str, port: int) -> list[str]:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    addresses = Addresses("dns:///tritons:8001", resolve)
    assert (addresses.look(), addresses.problems) == (["10.0.0.1:8001"], {})
    assert (addresses.look(), addresses.problems) == (["10.0.0.1:8001"], {"dns:///tritons:8001": "no answer"})
    assert (addresses.look(), addresses.problems) == (["10.0.0.2:8001"], {})


def test_the_systems_resolver_is_asked() -> None:
    assert "127.0.0.1:8001" in resolved("localhost", 8001)
    for name in ("nowhere.invalid", "x" * 70 + ".invalid"):
        with pytest.raises(Unresolved, match=rf"^TRITON_URL=dns:///{name}:8001: the name has no address \(.*\)$"):
            resolved(name, 8001)
