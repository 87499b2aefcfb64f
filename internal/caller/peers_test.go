package caller

import "testing"

func TestPeers(t *testing.T) {
	p, err := NewPeers("dapr", Batch, Limits{RequestsPerMinute: 1})
	if err != nil {
		t.Fatal(err)
	}
	a := p.Account("checkout")
	if class, l := a.Terms(); a.Name != "dapr-checkout" || a.Label != "dapr" || class != Batch || l.RequestsPerMinute != 1 {
		t.Errorf("%+v", a)
	}
	if p.Account("checkout") != a || p.Account("other") == a {
		t.Errorf("peers share an account, or one has two")
	}
	for _, strange := range []string{"", "a\nb", "a b"} {
		if got := p.Account(strange); got.Name != "dapr" || got != p.Account("") {
			t.Errorf("%q: %s", strange, got.Name)
		}
	}
}
