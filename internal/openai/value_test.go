package openai

import (
	"encoding/json/jsontext"
	"encoding/json/v2"
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestValue(t *testing.T) {
	const text = ` { "a" : [ 1 , "x,]" , {"b":[]} ] , "\u0062\"" :"q\\" , "c":{ } ,"d":-1.5e3, "e":null,"f":true } `
	if _, e := Peek([]byte(text)); e != nil {
		t.Fatal(e)
	}
	body := Value{Text: []byte(text)[1 : len(text)-1], At: 1}
	var got []string
	for name, v := range body.Members() {
		got = append(got, fmt.Sprintf("%s=%s", name, v.Text))
		if string(text[v.At:v.At+len(v.Text)]) != string(v.Text) {
			t.Errorf("%s is not at %d", name, v.At)
		}
	}
	want := `a=[ 1 , "x,]" , {"b":[]} ]|b"="q\\"|c={ }|d=-1.5e3|e=null|f=true`
	if s := strings.Join(got, "|"); s != want {
		t.Errorf("members\n%s, want\n%s", s, want)
	}
	got = nil
	for i, v := range body.Member("a").Elements() {
		got = append(got, fmt.Sprintf("%d=%s", i, v.Text))
	}
	if s, want := strings.Join(got, "|"), `0=1|1="x,]"|2={"b":[]}`; s != want {
		t.Errorf("elements %s, want %s", s, want)
	}
	if n := body.Member("a").Len(); n != 3 {
		t.Errorf("Len() = %d, want 3", n)
	}
	if n := body.Len(); n != 6 {
		t.Errorf("Len() = %d, want 6", n)
	}
	if s := body.Member(`b"`).String(); s != `q\` {
		t.Errorf("String() = %s", s)
	}
	if !body.Member("e").Absent() || !body.Member("z").Absent() || body.Member("f").Absent() {
		t.Error("Absent() is wrong")
	}
}

func TestValueWhole(t *testing.T) {
	for _, tt := range []struct {
		text string
		n    int
		ok   bool
	}{
		{"7", 7, true}, {"-1", -1, true}, {"1e2", 100, true}, {"2.0", 2, true}, {"2.5", 0, false}, {"1e300", 0, false},
		{"99999999999999999999", 0, false}, {"1e99999", 0, false}, {`"7"`, 0, false}, {"true", 0, false}, {"null", 0, false}, {"", 0, false},
	} {
		if n, ok := (Value{Text: []byte(tt.text)}).Whole(); n != tt.n || ok != tt.ok {
			t.Errorf("Whole(%s) = %d %v, want %d %v", tt.text, n, ok, tt.n, tt.ok)
		}
	}
}

// FuzzValue holds the walk to what the parser of the standard library finds.
func FuzzValue(f *testing.F) {
	for _, seed := range []string{`{}`, `{"a":[1,{"b":"\""}],"c":{}}`, ` {"":[ ] , "\\":"]" }`, `{"a":"\u0000","b":[[],[[]]],"c":-0.1}`, `[`, `{"a":1,"a":2}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		req, e := Peek(body)
		if e != nil {
			return
		}
		var want map[string]jsontext.Value
		if err := json.Unmarshal(body, &want); err != nil {
			t.Fatalf("accepted what the parser refuses: %v", err)
		}
		if len(req.Members) != len(want) {
			t.Errorf("%d members, want %d", len(req.Members), len(want))
		}
		for _, m := range req.Members {
			if string(want[m.Name]) != string(m.Value.Text) {
				t.Errorf("%q is %s, want %s", m.Name, m.Value.Text, want[m.Name])
			}
			compare(t, m.Value, body)
			if c := m.Value.Kind(); c != '{' && c != '[' {
				continue
			}
			want, objects := walk(m.Value, "")
			var got []string
			n, length := m.Value.Find(func([]byte, Path) bool { return true }, func(m Member, at Path) bool {
				got = append(got, at.String()+"="+string(m.Value.Text))
				return true
			})
			if !slices.Equal(got, want) || n != objects || length != m.Value.Len() {
				t.Errorf("Find in %s: %q, %d objects, length %d; want %q, %d, %d", m.Value.Text, got, n, length, want, objects, m.Value.Len())
			}
		}
	})
}

// walk is what Find finds, the slow way.
func walk(v Value, at string) (found []string, objects int) {
	if v.Kind() == '{' {
		objects++
	}
	for i, e := range v.Elements() {
		f, n := walk(e, fmt.Sprintf("%s[%d]", at, i))
		found, objects = append(found, f...), objects+n
	}
	for name, m := range v.Members() {
		short := string(name)
		if len(short) > 64 {
			short = strings.ToValidUTF8(short[:64], "") + "…"
		}
		path := at + "." + short
		f, n := walk(m, path)
		found, objects = append(append(found, path+"="+string(m.Text)), f...), objects+n
	}
	return found, objects
}

// compare walks the whole of v.
func compare(t *testing.T, v Value, body []byte) {
	if !jsontext.Value(v.Text).IsValid() || string(body[v.At:v.At+len(v.Text)]) != string(v.Text) {
		t.Fatalf("%q at %d is no value of %q", v.Text, v.At, body)
	}
	if v.Kind() == '[' {
		var list []jsontext.Value
		if err := json.Unmarshal(v.Text, &list); err != nil || len(list) != v.Len() {
			t.Fatalf("%d elements in %s, want %d", v.Len(), v.Text, len(list))
		}
	}
	for _, e := range v.Elements() {
		compare(t, e, body)
	}
	var object map[string]jsontext.Value
	if err := json.Unmarshal(v.Text, &object); err == nil && v.Kind() == '{' && len(object) != v.Len() {
		t.Fatalf("%d members in %s, want %d", v.Len(), v.Text, len(object))
	}
	for name, m := range v.Members() {
		if string(object[string(name)]) != string(m.Text) {
			t.Fatalf("%q is %s in %s", name, m.Text, v.Text)
		}
		compare(t, m, body)
	}
}
