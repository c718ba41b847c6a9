from meshd.l4.denials import Denials, client_of

WEB = ("kuma://kuma.io/zone/zone-a", "spiffe://default/web")
SHOP = ("spiffe://default/shop",)


def test_a_client_is_named_once_a_minute_and_what_was_left_out_is_counted():
    denials = Denials()
    first = denials.line("inbound:127.0.0.1:1", WEB, "allow-shop", 100.0)
    assert first == "inbound:127.0.0.1:1: denied client=spiffe://default/web rule=allow-shop"
    assert [denials.line("inbound:127.0.0.1:1", WEB, "allow-shop", 100.0 + t) for t in (0.1, 30, 59.9)] == [None] * 3
    again = denials.line("inbound:127.0.0.1:1", WEB, "allow-shop", 160.0)
    assert again == first + " (3 more since the last such line)"
    assert denials.line("inbound:127.0.0.1:1", WEB, "allow-shop", 220.0) == first, "the count begins anew"


def test_another_listener_client_or_rule_has_a_line_of_its_own():
    denials = Denials()
    for listener, uris, rule in [("a", WEB, "r"), ("b", WEB, "r"), ("a", SHOP, "r"), ("a", WEB, "s")]:
        assert denials.line(listener, uris, rule, 1.0) is not None
        assert denials.line(listener, uris, rule, 2.0) is None


def test_ever_new_clients_take_no_more_lines_than_are_remembered():
    denials = Denials(remembered=3)
    lines = [denials.line("a", (f"spiffe://default/s{n}",), "r", n / 100) for n in range(10)]
    assert [line is not None for line in lines] == [True] * 3 + [False] * 7
    assert denials.line("a", ("spiffe://default/s9",), "r", 60.0) is not None, "the oldest has had its minute"
    assert denials.line("a", ("spiffe://default/s1",), "r", 60.0) is None, "that one has not"


def test_a_client_is_all_its_services_and_may_be_nobody():
    assert client_of((*WEB, *SHOP)) == "spiffe://default/web,spiffe://default/shop"
    assert client_of(("kuma://kuma.io/zone/zone-a",)) == "nobody"
