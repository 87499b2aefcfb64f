package jobs

import (
	"bufio"
	"context"
	"encoding/json/v2"
	"errors"
	"io"
	"mime/multipart"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"infer/internal/openai"
	"infer/internal/store"
)

// Bounds of OpenAI's files for batches.
const (
	maxFileBytes = 200 << 20
	maxLines     = 50_000
)

// contentSpare is how much longer a content stays than what names it.
const contentSpare = time.Hour

// uploadStall is how long an upload may bring nothing.
const uploadStall = 60 * time.Second

// file is what is known of an uploaded or written file.
type file struct {
	ID      string    `json:"id"`
	Owner   string    `json:"owner"`
	Name    string    `json:"name"`
	Purpose string    `json:"purpose"` // batch or batch_output
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires"`
	Content ref       `json:"content"`
	Stays   time.Time `json:"stays,omitzero"` // when the content goes, whatever the client asked; zero where it follows from Expires
}

// stays is until when the content can be read.
func (f *file) stays() time.Time {
	if f.Stays.IsZero() {
		return f.Expires.Add(contentSpare)
	}
	return f.Stays
}

// fileObject is a file as clients see it.
type fileObject struct {
	ID        string `json:"id"`
	Object    string `json:"object"` // always file
	Bytes     int64  `json:"bytes"`
	CreatedAt int64  `json:"created_at"`
	ExpiresAt int64  `json:"expires_at"`
	Filename  string `json:"filename"`
	Purpose   string `json:"purpose"`
	Status    string `json:"status"` // always processed
}

func (f *file) object() fileObject {
	return fileObject{f.ID, "file", f.Content.Bytes, f.Created.Unix(), f.Expires.Unix(), f.Name, f.Purpose, "processed"}
}

func fileKey(owner, id string) string { return "file/" + ownerKey(owner) + "/" + id }

func (s *Service) loadFile(ctx context.Context, owner, id string) (*file, error) {
	if !validID(id) {
		return nil, absent("file", id)
	}
	it, err := s.store.Get(ctx, fileKey(owner, id))
	if err != nil {
		return nil, found(err, "file", id)
	}
	var f file
	return &f, json.Unmarshal(it.Value, &f)
}

// saveFile writes what is known of a file whose content is there. One that is
// there already is left as it is: two that finish one batch write the same.
func (s *Service) saveFile(ctx context.Context, f *file) error {
	b, err := json.Marshal(f)
	if err != nil {
		return err
	}
	return s.store.Create(ctx, fileKey(f.Owner, f.ID), b, time.Until(f.Expires))
}

func (s *Service) createFile(w http.ResponseWriter, r *http.Request) {
	f, err := s.upload(w, r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, f.object())
}

// upload is a form in the making.
type upload struct {
	purpose, anchor, seconds string
	name                     string
	content                  *ref
	stays                    time.Time // the content
}

// upload reads the form in whatever order its parts come, and the file's part
// without holding it in memory.
func (s *Service) upload(w http.ResponseWriter, r *http.Request) (*file, error) {
	// Before the form takes hold of it.
	r.Body = http.MaxBytesReader(w, &patient{r.Body, http.NewResponseController(w)}, maxFileBytes+1<<20)
	form, err := r.MultipartReader()
	if err != nil {
		return nil, &openai.Error{Status: http.StatusUnsupportedMediaType, Type: openai.TypeInvalidRequest, Code: openai.CodeMediaType,
			Message: "the body must be a form; send Content-Type: multipart/form-data with the parts purpose and file"}
	}
	var u upload
	discard := func() {
		if u.content != nil {
			s.drop(context.WithoutCancel(r.Context()), content{Ref: u.content})
		}
	}
	for {
		part, err := form.NextPart()
		if err == io.EOF {
			break
		}
		if err == nil {
			err = s.takePart(r.Context(), &u, part)
		} else {
			err = brokenForm(err)
		}
		if err != nil {
			discard()
			return nil, err
		}
	}
	f, err := u.file(s.caller(r), s.cfg.FileTTL)
	if err != nil {
		discard()
		return nil, err
	}
	if err = s.saveFile(r.Context(), f); notTaken(err) {
		discard()
	}
	return f, err
}

// patient gives every read of an upload its own time, where other bodies have
// one for all of theirs.
type patient struct {
	io.ReadCloser
	control *http.ResponseController
}

// Read implements io.Reader.
func (p *patient) Read(b []byte) (int, error) {
	_ = p.control.SetReadDeadline(time.Now().Add(uploadStall)) // not every server has deadlines
	return p.ReadCloser.Read(b)
}

func brokenForm(err error) error {
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return fileTooLarge()
	}
	return openai.Invalid("", openai.CodeInvalidValue, "the form is broken or ends too early; send it again")
}

func fileTooLarge() *openai.Error {
	return &openai.Error{Status: http.StatusRequestEntityTooLarge, Type: openai.TypeInvalidRequest, Code: openai.CodeTooLarge, Param: "file",
		Message: "the file is larger than " + strconv.Itoa(maxFileBytes) + " bytes; split it into several batches"}
}

func (s *Service) takePart(ctx context.Context, u *upload, part *multipart.Part) error {
	if part.FormName() == "file" {
		return s.takeFile(ctx, u, part)
	}
	b, err := io.ReadAll(io.LimitReader(part, 1024))
	if err != nil {
		return brokenForm(err)
	}
	switch part.FormName() {
	case "purpose":
		u.purpose = string(b)
	case "expires_after[anchor]":
		u.anchor = string(b)
	case "expires_after[seconds]":
		u.seconds = string(b)
	default:
		return openai.Invalid(clip(part.FormName()), openai.CodeUnsupported, "the part %q is not supported; send purpose and file", clip(part.FormName()))
	}
	return nil
}

func (s *Service) takeFile(ctx context.Context, u *upload, part *multipart.Part) error {
	if u.content != nil {
		return openai.Invalid("file", openai.CodeInvalidValue, "file is there twice; upload one file at a time")
	}
	ttl := s.cfg.FileTTL + contentSpare
	u.stays = time.Now().Add(ttl)
	w, err := s.blobs.create(ctx, ttl)
	if err != nil {
		return err
	}
	source := &faultReader{r: io.LimitReader(part, maxFileBytes+1)}
	n, err := io.Copy(w, source)
	switch {
	case source.err != nil:
		w.abort()
		return brokenForm(source.err)
	case err != nil:
		w.abort()
		return err
	case n > maxFileBytes:
		w.abort()
		return fileTooLarge()
	}
	r, err := w.commit()
	if err != nil {
		return err
	}
	u.name, u.content = cleanName(part.FileName()), &r
	return nil
}

// faultReader tells the client's fault from the store's.
type faultReader struct {
	r   io.Reader
	err error
}

// Read implements io.Reader.
func (f *faultReader) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	if err != nil && err != io.EOF {
		f.err = err
	}
	return n, err
}

// cleanName is what is repeated of a client's name for its file.
func cleanName(name string) string {
	name = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == '"' {
			return -1
		}
		return r
	}, filepath.Base(name))
	if name == "." || name == "/" || name == "" {
		return "file.jsonl"
	}
	if len(name) > 128 {
		name = strings.ToValidUTF8(name[:128], "")
	}
	return name
}

// file checks the form once all of it is there.
func (u *upload) file(owner string, ttl time.Duration) (*file, error) {
	switch {
	case u.content == nil:
		return nil, openai.Invalid("file", openai.CodeMissingField, "file is required: the part with the file's content")
	case u.purpose == "":
		return nil, openai.Invalid("purpose", openai.CodeMissingField, "purpose is required: batch")
	case u.purpose != "batch":
		return nil, openai.Invalid("purpose", openai.CodeInvalidValue, "purpose must be batch: files serve nothing else here")
	case u.content.Bytes == 0:
		return nil, openai.Invalid("file", openai.CodeInvalidValue, "file is empty; write one request a line")
	}
	if u.seconds != "" {
		seconds, err := strconv.Atoi(u.seconds)
		if err != nil || seconds < 3600 || seconds > int(ttl.Seconds()) { // more than a Duration can hold, too
			return nil, openai.Invalid("expires_after.seconds", openai.CodeInvalidValue,
				"expires_after.seconds must be from 3600 to %d, as long as this server keeps files", int(ttl.Seconds()))
		}
		ttl = time.Duration(seconds) * time.Second
	}
	if u.anchor != "" && u.anchor != "created_at" {
		return nil, openai.Invalid("expires_after.anchor", openai.CodeInvalidValue, "expires_after.anchor must be created_at")
	}
	now := time.Now()
	return &file{ID: newID("file-"), Owner: owner, Name: u.name, Purpose: u.purpose, Created: now, Expires: now.Add(ttl),
		Content: *u.content, Stays: u.stays}, nil
}

func (s *Service) listFiles(w http.ResponseWriter, r *http.Request) {
	limit, after, e := pageOf(r, 10_000)
	order, purpose := r.URL.Query().Get("order"), r.URL.Query().Get("purpose")
	if order != "" && order != "asc" && order != "desc" {
		e = openai.Invalid("order", openai.CodeInvalidValue, "order must be asc or desc")
	}
	if r.URL.Query().Get("limit") == "" {
		limit = 10_000
	}
	if e != nil {
		openai.WriteError(w, e)
		return
	}
	most, from := limit, after
	if order == "asc" { // kept newest first: the whole list is turned round
		most, from = 10_000, ""
	}
	l, err := readList(s, r, fileKey(s.caller(r), ""), most, from, func(key string) (fileObject, string, bool, error) {
		it, err := s.store.Get(r.Context(), key)
		if err != nil {
			return fileObject{}, "", false, err
		}
		var f file
		if err := json.Unmarshal(it.Value, &f); err != nil {
			return fileObject{}, "", false, err
		}
		return f.object(), f.ID, purpose == "" || f.Purpose == purpose, nil
	})
	if err != nil {
		s.fail(w, r, err)
		return
	}
	if order == "asc" {
		l = oldestFirst(l, limit, after)
	}
	writeJSON(w, http.StatusOK, l)
}

func oldestFirst(l list[fileObject], limit int, after string) list[fileObject] {
	slices.Reverse(l.Data)
	if after != "" {
		at := slices.IndexFunc(l.Data, func(f fileObject) bool { return f.ID == after })
		l.Data = l.Data[at+1:]
	}
	l.HasMore = len(l.Data) > limit
	l.Data = l.Data[:min(limit, len(l.Data))]
	l.FirstID, l.LastID = "", ""
	if n := len(l.Data); n > 0 {
		l.FirstID, l.LastID = l.Data[0].ID, l.Data[n-1].ID
	}
	return l
}

func (s *Service) getFile(w http.ResponseWriter, r *http.Request) {
	f, err := s.loadFile(r.Context(), s.caller(r), r.PathValue("id"))
	if err != nil {
		s.fail(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, f.object())
}

func (s *Service) fileContent(w http.ResponseWriter, r *http.Request) {
	f, err := s.loadFile(r.Context(), s.caller(r), r.PathValue("id"))
	var body io.ReadCloser
	if err == nil {
		body, err = s.blobs.open(r.Context(), f.Content)
		err = found(err, "file", f.ID)
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	defer func() { _ = body.Close() }() // it was only read
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Content-Length", strconv.FormatInt(f.Content.Bytes, 10))
	h.Set("Content-Disposition", `attachment; filename="`+f.Name+`"`)
	if _, err := io.CopyBuffer(w, bufio.NewReader(body), make([]byte, 64<<10)); err != nil && r.Context().Err() == nil {
		s.log.Error("file cannot be sent whole", "id", f.ID, "err", err)
		panic(http.ErrAbortHandler) // half a file must not look whole
	}
}

func (s *Service) deleteFile(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	f, err := s.loadFile(r.Context(), s.caller(r), id)
	if err == nil {
		err = s.store.Delete(r.Context(), fileKey(f.Owner, id), "")
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	s.drop(context.WithoutCancel(r.Context()), content{Ref: &f.Content})
	writeJSON(w, http.StatusOK, map[string]any{"id": id, "object": "file", "deleted": true})
}

// newOutput begins a file that a batch writes.
func (s *Service) newOutput(ctx context.Context) (blobWriter, error) {
	return s.blobs.create(ctx, s.cfg.FileTTL+contentSpare)
}

// publish makes a written content a file of the batch. Whoever writes it second
// drops its own. What the store may have taken stays: the file may refer to it.
func (s *Service) publish(ctx context.Context, t *task, id, name string, w blobWriter) error {
	r, err := w.commit()
	if err != nil {
		return err
	}
	now := time.Now()
	err = s.saveFile(ctx, &file{ID: id, Owner: t.Owner, Name: name, Purpose: "batch_output", Created: now, Expires: now.Add(s.cfg.FileTTL), Content: r})
	if notTaken(err) {
		s.drop(ctx, content{Ref: &r})
	}
	if errors.Is(err, store.ErrConflict) {
		return nil
	}
	return err
}
