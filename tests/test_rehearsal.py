from serstream.rehearsal import free_port_pair


def test_no_port_is_handed_out_twice() -> None:
    """The kernel draws from 14,000 even ports: 500 draws without a memory would meet again."""
    ports = [free_port_pair() for _ in range(500)]
    assert len(set(ports)) == 500
    assert all(port % 2 == 0 for port in ports)
