"""Work that goes on when its request is answered: its state is in the database, where every API
process finds it."""
