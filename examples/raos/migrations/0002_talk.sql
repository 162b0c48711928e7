CREATE TABLE messages (
    id INTEGER PRIMARY KEY,
    room TEXT NOT NULL,
    author TEXT NOT NULL REFERENCES accounts (name),
    text TEXT NOT NULL,
    sent_at TEXT NOT NULL
);
CREATE INDEX messages_by_room ON messages (room, id);
CREATE TABLE threads (
    id INTEGER PRIMARY KEY,
    board TEXT NOT NULL,
    title TEXT NOT NULL,
    author TEXT NOT NULL REFERENCES accounts (name),
    created_at TEXT NOT NULL
);
CREATE TABLE posts (
    id INTEGER PRIMARY KEY,
    thread INTEGER NOT NULL REFERENCES threads (id),
    author TEXT NOT NULL REFERENCES accounts (name),
    text TEXT NOT NULL,
    created_at TEXT NOT NULL
);
