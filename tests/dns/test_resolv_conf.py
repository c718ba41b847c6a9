from meshd.dns.resolv_conf import nameservers

TEXT = """\
# made by hand
search example.org
nameserver 10.0.0.2
 nameserver\t10.0.0.3  # the other one
nameserver 10.0.0.2
nameserver dns.example
nameserver
nameserver fe80::1%eth0
nameserver 2001:db8::1
options edns0
"""


def test_the_servers_are_taken_in_order_and_once() -> None:
    assert [str(a) for a in nameservers(TEXT)] == [
        "10.0.0.2:53", "10.0.0.3:53", "[fe80::1%eth0]:53", "[2001:db8::1]:53",
    ]  # fmt: skip


def test_nothing_is_nothing() -> None:
    assert nameservers("") == ()
