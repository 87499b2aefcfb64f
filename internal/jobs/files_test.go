package jobs

import (
	"bytes"
	"io"
	"mime/multipart"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"infer/internal/store"
)

// dated is a writer of a server that has deadlines.
type dated struct {
	*httptest.ResponseRecorder
	set int
}

func (d *dated) SetReadDeadline(time.Time) error { d.set++; return nil }

// zeros counts how much of it was read.
type zeros struct{ read int }

func (z *zeros) Read(b []byte) (int, error) {
	clear(b)
	z.read += len(b)
	return len(b), nil
}

// Every read of an upload has its own time, and all of them together a bound,
// also those of a part that is no file.
func TestUploadIsBounded(t *testing.T) {
	r := newReplica(t, store.NewMemory(1<<20), "", newEngine().chain)
	defer r.end()
	var head bytes.Buffer
	form := multipart.NewWriter(&head)
	if _, err := form.CreateFormField("purpose"); err != nil {
		t.Fatal(err)
	}
	body := &zeros{}
	req := httptest.NewRequest("POST", "/v1/files", io.MultiReader(&head, io.LimitReader(body, maxFileBytes+8<<20)))
	req.Header.Set("Content-Type", form.FormDataContentType())
	w := &dated{ResponseRecorder: httptest.NewRecorder()}
	r.mux.ServeHTTP(w, req)
	if w.Code != 413 || body.read > maxFileBytes+2<<20 {
		t.Errorf("%d after %d bytes: %s", w.Code, body.read, w.Body)
	}
	if w.set < 2 {
		t.Errorf("the time of the upload was set %d times", w.set)
	}
}

func TestFileExpiry(t *testing.T) {
	for seconds, want := range map[string]time.Duration{
		"": 48 * time.Hour, "3600": time.Hour, "172800": 48 * time.Hour,
		"3599": 0, "172801": 0, "10000000000": 0, "99999999999999999999": 0, "1.5": 0,
	} {
		u := upload{purpose: "batch", seconds: seconds, content: &ref{Bytes: 1}, stays: time.Now().Add(49 * time.Hour)}
		f, err := u.file("", 48*time.Hour)
		switch {
		case want == 0 && (err == nil || !strings.Contains(err.Error(), "from 3600 to 172800")):
			t.Errorf("%q: %v", seconds, err)
		case want > 0 && (err != nil || f.Expires.Sub(f.Created) != want || !f.stays().Equal(u.stays)):
			t.Errorf("%q: %+v, %v; want %v", seconds, f, err, want)
		}
	}
}
