-- Which of all libraries of that kind the journal feeds, and where that was met; neither before the first contact.
ALTER TABLE journal_identity ADD COLUMN library_id TEXT;
ALTER TABLE journal_identity ADD COLUMN library_place TEXT;
