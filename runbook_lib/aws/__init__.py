"""Thin, typed faces over boto3: methods named for our questions; plain values in, plain values out."""
