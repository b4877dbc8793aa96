"""What came out of a sweep: leaderboards, fronts, importances, and what its pictures show."""
