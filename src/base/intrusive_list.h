// A doubly linked list whose nodes are members of the elements: no allocation, O(1) removal. Lives on one shard.
#pragma once

#include <cstddef>

#include "base/check.h"

namespace fairlead {

// Base of an element; `Tag` tells apart the lists that one element may stand in. Must leave its list before it dies.
template <typename Tag>
class ListNode {
 public:
  ListNode() = default;
  ListNode(const ListNode&) = delete;
  ListNode& operator=(const ListNode&) = delete;
  ~ListNode() { FL_CHECK(!is_linked()); }
  bool is_linked() const { return next_ != nullptr; }

 private:
  template <typename T, typename U>
  friend class IntrusiveList;
  ListNode* next_ = nullptr;
  ListNode* previous_ = nullptr;
};

// Borrows its elements. Requires: T derives from ListNode<Tag>.
template <typename T, typename Tag = T>
class IntrusiveList {
  using Node = ListNode<Tag>;

 public:
  IntrusiveList() { head_.next_ = head_.previous_ = &head_; }
  IntrusiveList(const IntrusiveList&) = delete;
  IntrusiveList& operator=(const IntrusiveList&) = delete;
  ~IntrusiveList() {
    FL_CHECK(empty());
    head_.next_ = head_.previous_ = nullptr;
  }

  bool empty() const { return head_.next_ == &head_; }
  T& front() {
    FL_CHECK(!empty());
    return *element(head_.next_);
  }
  void push_back(T& item) { insert_before(head_, item); }
  void push_front(T& item) { insert_before(*head_.next_, item); }
  T& pop_front() {
    T& item = front();
    remove(item);
    return item;
  }
  void remove(T& item) {
    Node& node = item;
    FL_CHECK(node.is_linked());
    node.previous_->next_ = node.next_;
    node.next_->previous_ = node.previous_;
    node.next_ = node.previous_ = nullptr;
  }

  class Iterator {
   public:
    explicit Iterator(Node* at) : at_(at) {}
    T& operator*() const { return *element(at_); }
    Iterator& operator++() {
      at_ = at_->next_;
      return *this;
    }
    bool operator==(const Iterator&) const = default;

   private:
    Node* at_;
  };
  Iterator begin() { return Iterator(head_.next_); }
  Iterator end() { return Iterator(&head_); }

 private:
  static T* element(Node* node) { return static_cast<T*>(node); }
  void insert_before(Node& at, T& item) {
    Node& node = item;
    FL_CHECK(!node.is_linked());
    node.next_ = &at;
    node.previous_ = at.previous_;
    at.previous_->next_ = &node;
    at.previous_ = &node;
  }
  Node head_;
};

}  // namespace fairlead
