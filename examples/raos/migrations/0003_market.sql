CREATE TABLE items (
    id TEXT PRIMARY KEY,
    title TEXT NOT NULL,
    price INTEGER NOT NULL CHECK (price >= 0),
    stock INTEGER NOT NULL CHECK (stock >= 0)
);
CREATE TABLE orders (
    id INTEGER PRIMARY KEY,
    item TEXT NOT NULL REFERENCES items (id),
    buyer TEXT NOT NULL REFERENCES accounts (name),
    amount INTEGER NOT NULL CHECK (amount > 0),
    ordered_at TEXT NOT NULL
);
