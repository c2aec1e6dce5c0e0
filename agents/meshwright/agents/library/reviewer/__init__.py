"""The reviewer."""
